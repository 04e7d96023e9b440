package ai.onnxruntime;

public class OrtSession implements AutoCloseable {
    public static class SessionOptions implements AutoCloseable {
        public native void setIntraOpNumThreads(int numThreads) throws OrtException;

        @Override
        public native void close();
    }

    public static class Result implements AutoCloseable, Iterable<java.util.Map.Entry<String, OnnxValue>> {
        @Override
        public native java.util.Iterator<java.util.Map.Entry<String, OnnxValue>> iterator();

        @Override
        public native void close();
    }

    public native java.util.Set<String> getInputNames();

    public native Result run(java.util.Map<String, ? extends OnnxTensorLike> inputs) throws OrtException;

    @Override
    public native void close() throws OrtException;
}
