package org.phonefit.demo

import android.graphics.Bitmap
import java.io.Closeable
import java.io.File
import java.io.IOException
import org.phonefit.core.Artifact
import org.phonefit.core.FormatException
import org.phonefit.core.Interpretation
import org.phonefit.core.ModelSession
import org.phonefit.core.Picture
import org.phonefit.core.SharedFolder
import org.phonefit.core.interpret
import org.phonefit.core.median
import org.phonefit.core.toInput
import org.phonefit.demo.runtimes.runtime

private const val THREADS = 4
private const val LATENCIES = 30

/** A model that was pushed to the phone: [file] is described by [artifact]. */
internal class PushedModel(val file: File, val artifact: Artifact) {
    override fun toString(): String = file.name
}

/** The models on the phone, and what is wrong with descriptions that this app cannot read. */
internal class PushedModels(val models: List<PushedModel>, val problems: List<String>) {
    companion object {
        /** Reads the folder that phonefit pushes models to. */
        fun read(): PushedModels {
            val models = ArrayList<PushedModel>()
            val problems = ArrayList<String>()
            val descriptions = File(SharedFolder.MODELS).listFiles { file -> file.name.endsWith(".json") }.orEmpty()
            for (description in descriptions.sortedBy { it.name }) {
                try {
                    val artifact = Artifact.parse(description.readText(), description.name)
                    models += PushedModel(File(description.parentFile, artifact.file), artifact)
                } catch (error: FormatException) {
                    problems += error.message.orEmpty()
                } catch (error: IOException) {
                    problems += "${description.name}: ${error.message}"
                }
            }
            return PushedModels(models, problems)
        }
    }
}

/**
 * What came of one picture; the latency is the median of the last runs.
 *
 * @property shown the picture, or what the model painted, small enough for the screen.
 * @property photoWidth of the picture itself, in pixels.
 */
internal class Outcome(
    val shown: Bitmap,
    val photoWidth: Int,
    val interpretation: Interpretation,
    val artifact: Artifact,
    val delegate: String,
    val latencyNanoseconds: Double,
    val memoryBytes: Long,
)

/** A loaded model. Used by one thread. */
internal class DemoModel(model: PushedModel) : Closeable {
    private val artifact = model.artifact
    private val session: ModelSession = runtime(artifact.runtime).load(model.file.path, THREADS)
    private val latencies = ArrayDeque<Long>()
    private var memoryBytes = 0L

    /**
     * Runs the model on a picture.
     *
     * @param measureMemory takes milliseconds, so that it is not done for each frame of a camera.
     * @throws FormatException if the model is not one of pictures.
     */
    fun run(picture: Picture, measureMemory: Boolean): Outcome {
        val spec = artifact.inputs.singleOrNull() ?: throw FormatException("a model of pictures takes one input")
        session.bind(listOf(toInput(picture, artifact.preprocess, spec)))
        val start = System.nanoTime()
        session.run()
        latencies.addLast(System.nanoTime() - start)
        if (latencies.size > LATENCIES) latencies.removeFirst()
        if (measureMemory || memoryBytes == 0L) memoryBytes = pssBytes()
        val interpretation = interpret(artifact, session.outputs(), picture.width, picture.height)
        val shown = bitmapOf((interpretation as? Interpretation.Painted)?.picture ?: picture)
        val latency = median(latencies)
        return Outcome(shown, picture.width, interpretation, artifact, session.delegate, latency, memoryBytes)
    }

    override fun close() = session.close()
}
