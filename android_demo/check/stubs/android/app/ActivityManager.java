package android.app;

public class ActivityManager {
    public static class MemoryInfo {
        public long totalMem;
    }

    public native void getMemoryInfo(MemoryInfo outInfo);

    public native void setProcessStateSummary(byte[] state); // API 30

    public native java.util.List<ApplicationExitInfo> getHistoricalProcessExitReasons(
            String packageName, int pid, int maxNum); // API 30

    public static native boolean isLowMemoryKillReportSupported(); // API 30
}
