package org.tensorflow.lite;

public final class Interpreter implements AutoCloseable {
    public static class Options {
        public native Options setNumThreads(int numThreads);

        public native Options setUseXNNPACK(boolean useXNNPACK);
    }

    public Interpreter(java.io.File modelFile, Options options) {}

    public native void allocateTensors();

    public native int getInputTensorCount();

    public native Tensor getInputTensor(int inputIndex);

    public native int getOutputTensorCount();

    public native Tensor getOutputTensor(int outputIndex);

    public native void runForMultipleInputsOutputs(Object[] inputs, java.util.Map<Integer, Object> outputs);

    @Override
    public native void close();
}
