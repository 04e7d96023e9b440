package ai.onnxruntime;

public class OnnxTensor extends OnnxTensorLike {
    public static native OnnxTensor createTensor(
            OrtEnvironment env, java.nio.ByteBuffer data, long[] shape, OnnxJavaType type) throws OrtException;

    public native java.nio.ByteBuffer getByteBuffer();

    @Override
    public native void close();
}
