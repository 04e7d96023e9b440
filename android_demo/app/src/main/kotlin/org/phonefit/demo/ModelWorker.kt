package org.phonefit.demo

import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.util.Log
import java.io.Closeable
import org.phonefit.core.Picture

/** Loads and runs models on a thread of its own; what it says arrives on the main thread. */
internal class ModelWorker(private val onOutcome: (Outcome) -> Unit, private val onModelError: (String) -> Unit) :
    Closeable {
    private val thread = HandlerThread("model").apply { start() }
    private val main = Handler(Looper.getMainLooper())
    private var pushed: PushedModel? = null
    private var model: DemoModel? = null
    private var lastPicture: Picture? = null

    /** Of the worker's thread, for those who bring pictures. */
    val handler = Handler(thread.looper)

    /** Changes to another model, and runs it on the last picture. */
    fun select(chosen: PushedModel) {
        handler.post {
            attempt {
                model?.close()
                model = null
                pushed = chosen
                model = DemoModel(chosen)
                lastPicture?.let { runNow(it, measureMemory = true) }
            }
        }
    }

    /** Runs the model on a picture; called on the worker's thread. */
    fun run(picture: Picture, measureMemory: Boolean) = attempt {
        lastPicture = picture
        runNow(picture, measureMemory)
    }

    override fun close() {
        main.removeCallbacksAndMessages(null)
        handler.post {
            model?.close()
            model = null
        }
        thread.quitSafely()
    }

    private fun runNow(picture: Picture, measureMemory: Boolean) {
        val outcome = model?.run(picture, measureMemory) ?: return
        main.post { onOutcome(outcome) }
    }

    // a runtime may throw anything about a file or an input; the person is told and chooses another
    private fun attempt(block: () -> Unit) {
        try {
            block()
        } catch (error: Exception) {
            report(error)
        } catch (error: LinkageError) {
            report(error)
        } catch (error: OutOfMemoryError) {
            report(error)
        }
    }

    private fun report(error: Throwable) {
        Log.e("phonefit", "${pushed?.file}", error)
        main.post { onModelError(error.message ?: error.javaClass.simpleName) }
    }
}
