package org.phonefit.demo.runtimes

import java.nio.ByteBuffer
import org.phonefit.core.DataType
import org.phonefit.core.ModelRuntime
import org.phonefit.core.ModelSession
import org.phonefit.core.TensorData
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecuTorchRuntime
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

private const val METHOD = "forward"

/** .pte files, by executorch-android. */
internal object ExecuTorch : ModelRuntime {
    override fun start() {
        ExecuTorchRuntime.getRuntime()
    }

    override fun load(path: String, threads: Int): ModelSession = ExecuTorchSession(path, threads)
}

private class ExecuTorchSession(path: String, threads: Int) : ModelSession {
    private val module = Module.load(path, Module.LOAD_MODE_MMAP, threads).apply { loadMethod(METHOD) }
    private var inputs = emptyArray<EValue>()
    private var results = emptyArray<EValue>()

    override val delegate: String =
        module.getMethodMetadata(METHOD).backends.distinct().joinToString().ifEmpty { "portable" }

    override fun bind(inputs: List<TensorData>) {
        this.inputs = inputs.map { EValue.from(tensor(it)) }.toTypedArray()
    }

    override fun run() {
        results = module.execute(METHOD, *inputs)
    }

    override fun outputs(): List<TensorData> = results.map { tensorData(it.toTensor()) }

    override fun close() = module.destroy()

    private fun tensor(data: TensorData): Tensor {
        val shape = LongArray(data.shape.size) { data.shape[it].toLong() }
        // duplicates forget the byte order
        val bytes = data.bytes.duplicate().order(data.bytes.order())
        return when (data.type) {
            DataType.FLOAT32 -> Tensor.fromBlob(bytes.asFloatBuffer(), shape)
            DataType.INT8 -> Tensor.fromBlob(bytes, shape)
            DataType.UINT8 -> Tensor.fromBlobUnsigned(bytes, shape)
            DataType.INT32 -> Tensor.fromBlob(bytes.asIntBuffer(), shape)
            DataType.INT64 -> Tensor.fromBlob(bytes.asLongBuffer(), shape)
        }
    }

    private fun tensorData(tensor: Tensor): TensorData {
        val shape = tensor.shape().map { it.toInt() }
        return when (val type = tensor.dtype()) {
            DType.FLOAT -> filled(DataType.FLOAT32, shape) { it.asFloatBuffer().put(tensor.dataAsFloatArray) }
            DType.INT8 -> filled(DataType.INT8, shape) { it.put(tensor.dataAsByteArray) }
            DType.UINT8 -> filled(DataType.UINT8, shape) { it.put(tensor.dataAsUnsignedByteArray) }
            DType.INT32 -> filled(DataType.INT32, shape) { it.asIntBuffer().put(tensor.dataAsIntArray) }
            DType.INT64 -> filled(DataType.INT64, shape) { it.asLongBuffer().put(tensor.dataAsLongArray) }
            else -> throw IllegalArgumentException("this app cannot read an output of $type")
        }
    }

    private fun filled(type: DataType, shape: List<Int>, put: (ByteBuffer) -> Unit): TensorData =
        TensorData.allocate(type, shape).also { put(it.bytes.duplicate().order(it.bytes.order())) }
}
