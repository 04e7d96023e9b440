package org.phonefit.core

/** What a benchmark asks of the phone. */
interface Phone {
    /** Monotonic time for intervals. */
    fun nanoTime(): Long

    /** Time since the phone booted, sleep included. */
    fun elapsedRealtimeNanos(): Long

    /** Lets the calling thread sleep. */
    fun sleep(millis: Long)

    /** Proportional set size of this process, in bytes. */
    fun pssBytes(): Long

    /** 0 (none) to 6 (shutdown); null where the phone does not tell. */
    fun thermalStatus(): Int?

    /** The battery's gauge now. */
    fun gauge(): GaugeReading
}

/**
 * One run of a job, in this order: wait for unplug, idle baseline of the gauge, load, reference loops, warm-ups, timed
 * inferences, reference loops, comparison of the last outputs, memory.
 *
 * @property progress is told each step, in words for the log.
 */
class Benchmark(private val phone: Phone, private val runtime: ModelRuntime, private val progress: (String) -> Unit) {
    /** @throws JobException with the part that failed; an [OutOfMemoryError] passes through. */
    fun run(job: Job): Measurements {
        checkModel(job)
        val inputs = job.inputs.map(::readTensor)
        val expected = job.expected.map { readTensor(it) to it.tolerance }
        job.energy?.let { waitForUnplug(it) }
        val thermalBefore = phone.thermalStatus()
        val idle = job.energy?.let { idleBaseline(it) }.orEmpty()
        attempt(ErrorKind.MODEL, job.model) { runtime.start() }
        val memoryBefore = if (job.memory) phone.pssBytes() else 0
        progress("load ${job.model}")
        val loadStart = phone.nanoTime()
        val session = attempt(ErrorKind.MODEL, job.model) { runtime.load(job.model, job.threads) }
        val load = phone.nanoTime() - loadStart
        return session.use {
            val memoryAfter = if (job.memory) phone.pssBytes() else 0
            attempt(ErrorKind.INFERENCE, job.model) {
                val timed = timedRuns(session, job, inputs)
                val correctness = if (expected.isEmpty()) null else compareOutputs(session.outputs(), expected)
                val peak = if (job.memory) peakMemory(session, memoryAfter) else 0
                Measurements(
                    load = load,
                    warmups = timed.warmups,
                    samples = timed.samples,
                    referenceBefore = timed.referenceBefore,
                    referenceAfter = timed.referenceAfter,
                    timedFrom = timed.from,
                    timedUntil = timed.until,
                    memory = if (job.memory) MemoryUse(memoryBefore, memoryAfter, peak) else null,
                    thermalBefore = thermalBefore,
                    thermalAfter = phone.thermalStatus(),
                    gauge = idle + timed.gauge,
                    correctness = correctness,
                )
            }
        }
    }

    private class Timed(
        val warmups: List<Long>,
        val samples: List<Long>,
        val referenceBefore: List<Long>,
        val referenceAfter: List<Long>,
        val from: Long,
        val until: Long,
        val gauge: List<GaugeSample>,
    )

    private fun timedRuns(session: ModelSession, job: Job, inputs: List<TensorData>): Timed {
        session.bind(inputs)
        val referenceBefore = referenceLoops(job.reference, phone::nanoTime)
        progress("${job.warmups} warm-ups")
        val warmups = List(job.warmups) { timedRun(session) }
        val seconds = job.energy?.seconds ?: job.seconds ?: 0.0
        progress("at least ${job.repeats} inferences and $seconds s")
        val samples = ArrayList<Long>()
        val sampler = job.energy?.let { GaugeSampler(phone, it.intervalMillis, Phase.RUN) }
        val from = phone.elapsedRealtimeNanos()
        sampler?.start()
        val until = try {
            timedLoop(session, job.repeats, seconds, samples)
            phone.elapsedRealtimeNanos()
        } finally {
            sampler?.stop()
        }
        progress("median ${median(samples) / NANOS_PER_MILLI} ms of ${samples.size} inferences")
        return Timed(
            warmups,
            samples,
            referenceBefore,
            referenceLoops(job.reference, phone::nanoTime),
            from,
            until,
            sampler?.samples.orEmpty(),
        )
    }

    private fun timedLoop(session: ModelSession, repeats: Int, seconds: Double, samples: MutableList<Long>) {
        val start = phone.nanoTime()
        val end = start + (seconds * NANOS_PER_SECOND).toLong()
        var nextWord = start + WORD_EVERY_NANOS
        while (samples.size < repeats || phone.nanoTime() < end) {
            samples += timedRun(session)
            if (phone.nanoTime() > nextWord) {
                progress("${samples.size} inferences")
                nextWord += WORD_EVERY_NANOS
            }
        }
    }

    private fun timedRun(session: ModelSession): Long {
        val start = phone.nanoTime()
        session.run()
        return phone.nanoTime() - start
    }

    private fun waitForUnplug(energy: EnergyOptions) {
        val end = phone.nanoTime() + (energy.waitForUnplugSeconds * NANOS_PER_SECOND).toLong()
        if (phone.nanoTime() < end && phone.gauge().plugged != 0) progress("waiting until no power is connected")
        while (phone.nanoTime() < end && phone.gauge().plugged != 0) phone.sleep(POLL_MILLIS)
    }

    private fun idleBaseline(energy: EnergyOptions): List<GaugeSample> {
        progress("idle for ${energy.idleSeconds} s")
        val sampler = GaugeSampler(phone, energy.intervalMillis, Phase.IDLE)
        sampler.start()
        phone.sleep((energy.idleSeconds * 1000).toLong())
        sampler.stop()
        return sampler.samples
    }

    // reading PSS disturbs an inference, so it has a few of its own
    private fun peakMemory(session: ModelSession, after: Long): Long = (1..MEMORY_RUNS).maxOf {
        session.run()
        phone.pssBytes()
    }.coerceAtLeast(after)

    private companion object {
        const val NANOS_PER_SECOND = 1_000_000_000L
        const val NANOS_PER_MILLI = 1e6
        const val WORD_EVERY_NANOS = 10 * NANOS_PER_SECOND
        const val POLL_MILLIS = 500L
        const val MEMORY_RUNS = 5
    }
}

/** Reads the gauge on a thread of its own, every [intervalMillis], from [start] to [stop]. */
private class GaugeSampler(private val phone: Phone, private val intervalMillis: Int, private val phase: Phase) {
    private val taken = ArrayList<GaugeSample>()

    @Volatile
    private var stopped = false

    private val thread = Thread(::read, "gauge")

    /** What was read; complete after [stop]. */
    val samples: List<GaugeSample> get() = taken

    fun start() = thread.start()

    private fun read() {
        do {
            taken += GaugeSample(phone.gauge(), phase)
            phone.sleep(intervalMillis.toLong())
        } while (!stopped)
    }

    fun stop() {
        stopped = true
        thread.join()
    }
}

/** Runs [block]; whatever a runtime throws, but for an [OutOfMemoryError], becomes a [JobException] of [kind]. */
private inline fun <T> attempt(kind: ErrorKind, model: String, block: () -> T): T = try {
    block()
} catch (error: JobException) {
    throw error
} catch (error: OutOfMemoryError) {
    throw error
} catch (error: Exception) {
    throw JobException(kind, "$model: ${error.message ?: error.javaClass.simpleName}", error)
} catch (error: LinkageError) {
    throw JobException(kind, "$model: the runtime cannot be used on this phone: $error", error)
}
