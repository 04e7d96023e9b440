package org.phonefit.demo.runtimes

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import org.phonefit.core.DataType
import org.phonefit.core.ModelRuntime
import org.phonefit.core.ModelSession
import org.phonefit.core.TensorData

/** .onnx files, by ONNX Runtime on the CPU. */
internal object Onnx : ModelRuntime {
    override fun start() {
        OrtEnvironment.getEnvironment()
    }

    override fun load(path: String, threads: Int): ModelSession = OnnxSession(path, threads)
}

private class OnnxSession(path: String, threads: Int) : ModelSession {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = OrtSession.SessionOptions().use { options ->
        options.setIntraOpNumThreads(threads)
        environment.createSession(path, options)
    }
    private var inputs = emptyMap<String, OnnxTensor>()
    private var result: OrtSession.Result? = null

    override val delegate: String get() = "CPUExecutionProvider"

    override fun bind(inputs: List<TensorData>) {
        val names = session.inputNames.toList()
        require(names.size == inputs.size) { "${inputs.size} inputs for a model that takes ${names.size}" }
        this.inputs.values.forEach(OnnxTensor::close)
        this.inputs = names.zip(inputs.map(::tensor)).toMap()
    }

    override fun run() {
        result?.close()
        result = session.run(inputs)
    }

    override fun outputs(): List<TensorData> =
        checkNotNull(result) { "no run yet" }.map { (_, value) -> tensorData(value as OnnxTensor) }

    override fun close() {
        result?.close()
        inputs.values.forEach(OnnxTensor::close)
        session.close()
    }

    private fun tensor(data: TensorData): OnnxTensor {
        val shape = LongArray(data.shape.size) { data.shape[it].toLong() }
        val type = when (data.type) {
            DataType.FLOAT32 -> OnnxJavaType.FLOAT
            DataType.INT8 -> OnnxJavaType.INT8
            DataType.UINT8 -> OnnxJavaType.UINT8
            DataType.INT32 -> OnnxJavaType.INT32
            DataType.INT64 -> OnnxJavaType.INT64
        }
        return OnnxTensor.createTensor(environment, data.bytes, shape, type)
    }

    private fun tensorData(tensor: OnnxTensor): TensorData {
        val type = when (val type = tensor.info.type) {
            OnnxJavaType.FLOAT -> DataType.FLOAT32
            OnnxJavaType.INT8 -> DataType.INT8
            OnnxJavaType.UINT8 -> DataType.UINT8
            OnnxJavaType.INT32 -> DataType.INT32
            OnnxJavaType.INT64 -> DataType.INT64
            else -> throw IllegalArgumentException("this app cannot read an output of $type")
        }
        return TensorData.allocate(type, tensor.info.shape.map { it.toInt() }).also {
            it.bytes.duplicate().put(tensor.byteBuffer)
        }
    }
}
