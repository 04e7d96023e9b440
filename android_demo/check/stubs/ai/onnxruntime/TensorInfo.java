package ai.onnxruntime;

public class TensorInfo {
    public final OnnxJavaType type = null;

    public native long[] getShape();
}
