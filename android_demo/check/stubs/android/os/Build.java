package android.os;

public class Build {
    public static final String FINGERPRINT = String.valueOf("");
    public static final String HARDWARE = String.valueOf("");
    public static final String MANUFACTURER = String.valueOf("");
    public static final String MODEL = String.valueOf("");
    public static final String SOC_MANUFACTURER = String.valueOf(""); // API 31
    public static final String SOC_MODEL = String.valueOf(""); // API 31
    public static final String[] SUPPORTED_32_BIT_ABIS = {};
    public static final String[] SUPPORTED_64_BIT_ABIS = {};

    public static class VERSION {
        public static final String RELEASE = String.valueOf("");
        public static final int SDK_INT = Integer.parseInt("0");
    }
}
