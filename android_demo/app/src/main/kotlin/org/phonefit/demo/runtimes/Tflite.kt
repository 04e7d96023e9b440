package org.phonefit.demo.runtimes

import java.io.File
import java.nio.ByteBuffer
import org.phonefit.core.DataType
import org.phonefit.core.ModelRuntime
import org.phonefit.core.ModelSession
import org.phonefit.core.TensorData
import org.tensorflow.lite.DataType as TfliteType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor
import org.tensorflow.lite.TensorFlowLite

/** .tflite files, by LiteRT's Interpreter with XNNPACK. */
internal object Tflite : ModelRuntime {
    override fun start() {
        TensorFlowLite.init()
    }

    override fun load(path: String, threads: Int): ModelSession = TfliteSession(path, threads)
}

private class TfliteSession(path: String, threads: Int) : ModelSession {
    private val interpreter = Interpreter(
        File(path),
        Interpreter.Options().setNumThreads(threads).setUseXNNPACK(true),
    ).apply { allocateTensors() }
    private val results = List(interpreter.outputTensorCount) { allocate(interpreter.getOutputTensor(it)) }
    private val targets = results.withIndex().associate { (index, result) -> index to result.bytes as Any }
    private var inputs = emptyArray<Any>()

    override val delegate: String get() = "XNNPACK"

    override fun bind(inputs: List<TensorData>) {
        this.inputs = inputs.map { it.bytes as Any }.toTypedArray()
    }

    override fun run() {
        // the interpreter writes from a buffer's position on, and moves it
        for (result in results) result.bytes.rewind()
        interpreter.runForMultipleInputsOutputs(inputs, targets)
    }

    override fun outputs(): List<TensorData> = results.map { result ->
        TensorData.allocate(result.type, result.shape).also { copy ->
            val source: ByteBuffer = result.bytes.duplicate()
            source.rewind()
            copy.bytes.duplicate().put(source)
        }
    }

    override fun close() = interpreter.close()

    private fun allocate(tensor: Tensor): TensorData {
        val type = when (val type = tensor.dataType()) {
            TfliteType.FLOAT32 -> DataType.FLOAT32
            TfliteType.INT8 -> DataType.INT8
            TfliteType.UINT8 -> DataType.UINT8
            TfliteType.INT32 -> DataType.INT32
            TfliteType.INT64 -> DataType.INT64
            else -> throw IllegalArgumentException("this app cannot read an output of $type")
        }
        return TensorData.allocate(type, tensor.shape().asList())
    }
}
