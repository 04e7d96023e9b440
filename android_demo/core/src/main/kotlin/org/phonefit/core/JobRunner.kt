package org.phonefit.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException

/** How an earlier process ended, as far as the phone tells. */
class ProcessEnd(val outOfMemory: Boolean, val description: String)

/**
 * Runs each job once and keeps its result in [results], where a file always holds a whole result.
 *
 * The result is "running" from the start; a process that finds it so, and did not begin it, tells how the earlier one
 * ended. A job that has ended is left as it is.
 *
 * @property jobs the only folder that jobs are read from.
 * @property howEnded tells how the process that ran a job ended; null where the phone does not say.
 * @property execute runs a job: [Benchmark.run].
 */
class JobRunner(
    private val jobs: File,
    private val results: File,
    private val versions: AppVersions,
    private val device: DeviceDescription,
    private val howEnded: (jobId: String) -> ProcessEnd?,
    private val execute: (Job) -> Measurements,
) {
    /**
     * Runs the job in the file at [path], or ends it if an earlier process began it. Blocks until it is done.
     *
     * @return the result; null if there was nothing to do.
     * @throws JobException if [path] does not name a job, so that no result can bear its name.
     */
    fun start(path: String): JobResult? {
        val file = File(path)
        val id = file.name.removeSuffix(".json")
        if (file.parentFile != jobs || !file.name.endsWith(".json") || !Job.isId(id)) {
            throw JobException(ErrorKind.JOB, "$path: not a job; jobs are $jobs/ID.json")
        }
        val target = File(results, "$id.json")
        if (target.exists()) {
            if (!JobResult.isRunning(target.readText(), target.path)) return null
            return write(target, endedBefore(id))
        }
        write(target, result(id, Status.RUNNING))
        return write(target, runJob(file, id))
    }

    private fun runJob(file: File, id: String): JobResult = try {
        result(id, Status.OK, measurements = execute(readJob(file, id)))
    } catch (error: JobException) {
        result(id, Status.ERROR, error.kind to error.message.orEmpty())
    } catch (error: OutOfMemoryError) {
        result(id, Status.OUT_OF_MEMORY, ErrorKind.CRASH to "the app's heap is full: ${error.message}")
    } catch (error: Exception) {
        // a defect of the app; told to the host rather than ended without words
        result(id, Status.ERROR, ErrorKind.CRASH to "the app failed: $error")
    }

    private fun readJob(file: File, id: String): Job = try {
        val job = Job.parse(file.readText(), file.path)
        if (job.id != id) throw FormatException("${file.path}: its id is ${job.id}")
        job
    } catch (error: IOException) {
        throw JobException(ErrorKind.JOB, "${file.path}: cannot be read: ${error.message}", error)
    } catch (error: FormatException) {
        throw JobException(ErrorKind.JOB, error.message.orEmpty(), error)
    }

    private fun endedBefore(id: String): JobResult {
        val end = howEnded(id) ?: ProcessEnd(false, "the phone does not say how (Android 11 and later do)")
        val status = if (end.outOfMemory) Status.OUT_OF_MEMORY else Status.ERROR
        return result(id, status, ErrorKind.CRASH to "the app ended while it ran this job: ${end.description}")
    }

    private fun result(
        id: String,
        status: Status,
        error: Pair<ErrorKind, String>? = null,
        measurements: Measurements? = null,
    ) = JobResult(id, status, versions, device, error, measurements)

    private fun write(target: File, result: JobResult): JobResult {
        writeAtomically(target, result.toJson())
        return result
    }
}

/** Writes [text] so that [target] holds either its old content or all of the new one, also after a kill. */
fun writeAtomically(target: File, text: String) {
    target.parentFile?.mkdirs()
    val temporary = File(target.parentFile, ".${target.name}.tmp")
    FileOutputStream(temporary).use { stream ->
        stream.write(text.toByteArray())
        stream.fd.sync()
    }
    if (!temporary.renameTo(target)) throw IOException("$temporary could not become $target")
}
