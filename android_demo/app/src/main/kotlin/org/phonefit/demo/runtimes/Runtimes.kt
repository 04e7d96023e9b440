package org.phonefit.demo.runtimes

import org.phonefit.core.ModelRuntime
import org.phonefit.core.RuntimeName

/** The runtime of that name. */
fun runtime(name: RuntimeName): ModelRuntime = when (name) {
    RuntimeName.EXECUTORCH -> ExecuTorch
    RuntimeName.TFLITE -> Tflite
    RuntimeName.ONNX -> Onnx
}
