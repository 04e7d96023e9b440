package org.tensorflow.lite;

public final class TensorFlowLite {
    public static native void init();
}
