package org.phonefit.core

import java.io.File
import java.security.MessageDigest
import java.util.concurrent.atomic.AtomicLong
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

private const val RUN_NANOS = 5_000_000L

class BenchmarkTest {
    private val folder = File.createTempFile("bench", "").apply {
        delete()
        mkdirs()
    }
    private val phone = FakePhone()
    private val session = DoublingSession(phone)

    @AfterTest
    fun deleteFolder() {
        folder.deleteRecursively()
    }

    @Test
    fun `keeps every sample, warm-ups apart`() {
        val measured = run(job(repeats = 7, warmups = 3))
        assertEquals(List(7) { RUN_NANOS }, measured.samples)
        assertEquals(List(3) { RUN_NANOS }, measured.warmups)
        assertEquals(7 * RUN_NANOS, measured.timedUntil - measured.timedFrom)
        assertEquals(2 to 2, measured.referenceBefore.size to measured.referenceAfter.size)
        assertTrue(session.closed)
    }

    @Test
    fun `goes on for the seconds asked for`() {
        assertEquals(200, run(job(repeats = 7, seconds = 1.0)).samples.size)
    }

    @Test
    fun `compares the last outputs with what is expected`() {
        assertEquals(true, run(job()).correctness?.passed)
        val wrong = assertNotNull(run(job(expected = floats(2f, 4f, 7f))).correctness)
        assertEquals(false to 1.0 / 5, wrong.passed to wrong.maxDifference)
    }

    @Test
    fun `reads memory apart, or not at all`() {
        val memory = assertNotNull(run(job()).memory)
        assertTrue(memory.beforeLoad < memory.afterLoad && memory.afterLoad < memory.peak)
        assertNull(run(job(memory = false)).memory)
    }

    @Test
    fun `reads the gauge while idle and while running`() {
        phone.unplugAfter = 3
        val measured = run(job(energy = EnergyOptions(30.0, 2.0, 100, 60.0)))
        assertEquals(400, measured.samples.size)
        assertEquals(listOf(Phase.IDLE, Phase.RUN), measured.gauge.map { it.phase }.distinct())
        assertTrue(measured.gauge.all { it.reading.plugged == 0 })
    }

    @Test
    fun `goes on although power stays connected`() {
        val measured = run(job(energy = EnergyOptions(1.0, 0.1, 100, 5.0)))
        assertTrue(measured.gauge.all { it.reading.plugged == 2 })
    }

    @Test
    fun `says which part failed`() {
        val missing = job().copyWith(model = "$folder/none.tflite")
        assertEquals(ErrorKind.FILE, kind { run(missing) })
        assertEquals(ErrorKind.DIGEST, kind { run(job().copyWith(sha256 = "0")) })
        assertEquals(ErrorKind.FILE, kind { run(job(inputShape = listOf(1, 4))) })
        assertEquals(ErrorKind.MODEL, kind { run(job(), failing(IllegalArgumentException("not a model"))) })
        assertEquals(ErrorKind.MODEL, kind { run(job(), failing(UnsatisfiedLinkError())) })
        assertEquals(ErrorKind.MODEL, kind { run(job(expected = floats(1f))) })
        session.failure = IllegalStateException("gave up")
        assertEquals(ErrorKind.INFERENCE, kind { run(job()) })
        session.failure = OutOfMemoryError()
        assertFailsWith<OutOfMemoryError> { run(job()) }
    }

    private fun kind(block: () -> Unit): ErrorKind = assertFailsWith<JobException> { block() }.kind

    private fun run(job: Job, runtime: ModelRuntime = runtime { session }): Measurements =
        Benchmark(phone, runtime) { }.run(job)

    private fun failing(error: Throwable) = runtime { throw error }

    private fun runtime(load: () -> ModelSession) = object : ModelRuntime {
        override fun start() = Unit

        override fun load(path: String, threads: Int): ModelSession = load()
    }

    private fun job(
        repeats: Int = 1,
        warmups: Int = 0,
        seconds: Double? = null,
        memory: Boolean = true,
        energy: EnergyOptions? = null,
        inputShape: List<Int> = listOf(1, 3),
        expected: ByteArray = floats(2f, 4f, 6f),
    ): Job {
        val model = file("model.tflite", byteArrayOf(1, 2, 3))
        val input = file("input.bin", floats(1f, 2f, 3f))
        val output = file("expected.bin", expected)
        val outputShape = listOf(1, expected.size / 4)
        return Job(
            id = "a",
            model = model.path,
            sha256 = digest(model),
            bytes = model.length(),
            runtime = RuntimeName.TFLITE,
            threads = 1,
            warmups = warmups,
            repeats = repeats,
            seconds = seconds,
            reference = 2,
            inputs = listOf(TensorFile(input.path, digest(input), DataType.FLOAT32, inputShape)),
            expected = listOf(ExpectedFile(output.path, digest(output), DataType.FLOAT32, outputShape, 1e-6)),
            energy = energy,
            memory = memory,
        )
    }

    private fun Job.copyWith(model: String = this.model, sha256: String = this.sha256) = Job(
        id,
        model,
        sha256,
        bytes,
        runtime,
        threads,
        warmups,
        repeats,
        seconds,
        reference,
        inputs,
        expected,
        energy,
        memory,
    )

    private fun floats(vararg values: Float): ByteArray {
        val data = TensorData.allocate(DataType.FLOAT32, listOf(values.size))
        data.bytes.duplicate().order(data.bytes.order()).asFloatBuffer().put(values)
        return ByteArray(values.size * 4).also { data.bytes.duplicate().get(it) }
    }

    private fun file(name: String, content: ByteArray) = File(folder, name).apply { writeBytes(content) }

    private fun digest(file: File): String =
        MessageDigest.getInstance("SHA-256").digest(file.readBytes()).joinToString("") { "%02x".format(it) }
}

/** A phone whose time passes only when something is run on it. */
private class FakePhone : Phone {
    val nanos = AtomicLong(1)
    val memory = AtomicLong(1000)
    var unplugAfter = Int.MAX_VALUE

    private val main = Thread.currentThread()
    private var sleeps = 0

    override fun nanoTime(): Long = nanos.get()

    override fun elapsedRealtimeNanos(): Long = nanos.get()

    override fun sleep(millis: Long) {
        if (Thread.currentThread() != main) return Thread.sleep(1)
        sleeps++
        nanos.addAndGet(millis * 1_000_000)
    }

    override fun pssBytes(): Long = memory.incrementAndGet()

    override fun thermalStatus(): Int = 0

    override fun gauge() = GaugeReading(0, -1000, null, 4000, if (sleeps >= unplugAfter) 0 else 2)
}

/** A model that doubles its input. */
private class DoublingSession(private val phone: FakePhone) : ModelSession {
    var failure: Throwable? = null
    var closed = false
    private var input: TensorData? = null

    override val delegate = "none"

    override fun bind(inputs: List<TensorData>) {
        input = inputs.single()
    }

    override fun run() {
        failure?.let { throw it }
        phone.nanos.addAndGet(RUN_NANOS)
    }

    override fun outputs(): List<TensorData> {
        val source = checkNotNull(input)
        val result = TensorData.allocate(DataType.FLOAT32, source.shape)
        for (index in 0 until source.size) result.bytes.putFloat(index * 4, source[index].toFloat() * 2)
        return listOf(result)
    }

    override fun close() {
        closed = true
    }
}
