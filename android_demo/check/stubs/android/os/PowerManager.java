package android.os;

public final class PowerManager {
    public static final int PARTIAL_WAKE_LOCK = 1;

    public final class WakeLock {
        public native void acquire(long timeout);

        public native void release();
    }

    public native WakeLock newWakeLock(int levelAndFlags, String tag);

    public native int getCurrentThermalStatus(); // API 29
}
