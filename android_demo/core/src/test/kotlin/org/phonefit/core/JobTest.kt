package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull

class JobTest {
    private val text = golden("app_job_1.json")

    @Test
    fun `reads what phonefit writes`() {
        val job = Job.parse(text, "job.json")
        assertEquals("solar-int8-3f2a", job.id)
        assertEquals(RuntimeName.TFLITE to 2, job.runtime to job.threads)
        assertEquals(listOf(5, 50, 5), listOf(job.warmups, job.repeats, job.reference))
        assertEquals(2.5, job.seconds)
        assertEquals(listOf(1, 32, 32, 3), job.inputs.single().shape)
        assertEquals(listOf(0.0, 1e-4), job.expected.map { it.tolerance })
        assertEquals(100, assertNotNull(job.energy).intervalMillis)
    }

    @Test
    fun `takes the same values as phonefit for what is left out`() {
        val least = """{"schema_number": 1, "id": "a", "model": "m", "sha256": "", "bytes": 1, "runtime": "onnx",
            "inputs": [{"path": "p", "sha256": "", "dtype": "uint8", "shape": [1]}]}"""
        val job = Job.parse(least, "job.json")
        assertEquals(listOf(1, 5, 50, 0), listOf(job.threads, job.warmups, job.repeats, job.reference))
        assertNull(job.seconds)
        assertNull(job.energy)
        assertEquals(emptyList(), job.expected)
        assertEquals(true, job.memory)
    }

    @Test
    fun `refuses what it does not know`() {
        val changes = listOf(
            "\"schema_number\": 1" to "\"schema_number\": 2",
            "\"repeats\": 50" to "\"repeats\": 0",
            "\"repeats\": 50" to "\"repeats\": 50, \"later\": 1",
            "\"interval_ms\": 100" to "\"interval_ms\": 1",
            "\"id\": \"solar-int8-3f2a\"" to "\"id\": \"../x\"",
            "\"seconds\": 2.5" to "\"seconds\": 0",
            "\"threads\": 2" to "\"threads\": 65",
        )
        for ((old, new) in changes) {
            assertFailsWith<FormatException>(new) { Job.parse(text.replace(old, new), "job.json") }
        }
    }

    @Test
    fun `writes results as phonefit reads them`() {
        val result = JobResult(
            jobId = "solar-int8-3f2a",
            status = Status.OK,
            versions = AppVersions("0.1.0", mapOf("executorch" to "1.1.0", "onnx" to "1.22.0", "tflite" to "1.4.2")),
            device = DeviceDescription(
                manufacturer = "Google",
                model = "Pixel 8",
                soc = "Google Tensor G3",
                abi = "arm64-v8a",
                sdk = 35,
                androidVersion = "15",
                fingerprint = "google/shiba/shiba:15/AP4A.250205.002/12821496:user/release-keys",
                cores = 9,
                ramBytes = 7911636992,
            ),
            measurements = Measurements(
                load = 12345678,
                warmups = listOf(9000001, 5100000),
                samples = listOf(5000000, 5010000, 4990000),
                referenceBefore = listOf(5000000, 5001000),
                referenceAfter = listOf(5050000, 5049000),
                timedFrom = 86400000000000,
                timedUntil = 86400015400000,
                memory = MemoryUse(41943040, 44040192, 46137344),
                thermalBefore = 0,
                thermalAfter = 1,
                gauge = listOf(
                    GaugeSample(GaugeReading(86360000, -310000, 3900000, 4012, 0), Phase.IDLE),
                    GaugeSample(GaugeReading(86400010, -900000, null, 3990, 0), Phase.RUN),
                ),
                correctness = Correctness(0.0, 1.0, passed = true),
            ),
        )
        assertEquals(Json.parse(golden("app_result_1.json")), Json.parse(result.toJson()))
    }
}
