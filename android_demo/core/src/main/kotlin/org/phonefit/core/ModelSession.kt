package org.phonefit.core

import java.io.Closeable

/** How to load a model file: one implementation a runtime. */
interface ModelRuntime {
    /** Loads the runtime's own libraries, so that load time and memory of a model can be told from the runtime's. */
    fun start()

    /**
     * Loads a model file, so that the next call can be an inference. Throws what the runtime throws.
     *
     * @param threads of the CPU.
     */
    fun load(path: String, threads: Int): ModelSession
}

/** A loaded model. Used by one thread. */
interface ModelSession : Closeable {
    /** What runs the graph, for a person to read. */
    val delegate: String

    /** Sets what the next runs take: one for each input, as stored. */
    fun bind(inputs: List<TensorData>)

    /** One inference: the part that is timed. */
    fun run()

    /** The outputs of the last [run], as stored. */
    fun outputs(): List<TensorData>
}
