package org.phonefit.core

import java.io.File
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class JobRunnerTest {
    private val folder = File.createTempFile("jobs", "").apply {
        delete()
        mkdirs()
    }
    private val results = File(folder, "results")
    private val done =
        Measurements(1, emptyList(), listOf(2), emptyList(), emptyList(), 3, 4, null, null, null, emptyList(), null)

    @AfterTest
    fun deleteFolder() {
        folder.deleteRecursively()
    }

    @Test
    fun `keeps the result, running until it is there`() {
        val path = job("a")
        runner {
            assertEquals("running", status("a"))
            done
        }.start(path)
        assertEquals("ok", status("a"))
        assertEquals(listOf("a.json"), results.list().orEmpty().toList())
    }

    @Test
    fun `a job is run once`() {
        val path = job("a")
        runner { done }.start(path)
        assertNull(runner { error("run again") }.start(path))
        assertEquals("ok", status("a"))
    }

    @Test
    fun `tells how an earlier process ended`() {
        val path = job("a")
        assertFailsWith<StackOverflowError> { runner { throw StackOverflowError() }.start(path) }
        assertEquals("running", status("a"))
        runner(ProcessEnd(outOfMemory = false, "native crash, SIGSEGV")) { error("run again") }.start(path)
        assertEquals("error" to "crash", status("a") to errorKind("a"))
        assertTrue("native crash, SIGSEGV" in File(results, "a.json").readText())
    }

    @Test
    fun `tells of an end for lack of memory`() {
        val path = job("a")
        assertFailsWith<StackOverflowError> { runner { throw StackOverflowError() }.start(path) }
        runner(ProcessEnd(outOfMemory = true, "killed for low memory")) { error("run again") }.start(path)
        assertEquals("out_of_memory" to "crash", status("a") to errorKind("a"))
    }

    @Test
    fun `says so where the phone does not tell`() {
        val path = job("a")
        assertFailsWith<StackOverflowError> { runner { throw StackOverflowError() }.start(path) }
        runner { error("run again") }.start(path)
        assertEquals("error" to "crash", status("a") to errorKind("a"))
    }

    @Test
    fun `errors come back as results`() {
        val failures = listOf(
            JobException(ErrorKind.MODEL, "refused") to ("error" to "model"),
            IllegalStateException("defect") to ("error" to "crash"),
            OutOfMemoryError("heap") to ("out_of_memory" to "crash"),
        )
        failures.forEachIndexed { index, (failure, expected) ->
            runner { throw failure }.start(job("a$index"))
            assertEquals(expected, status("a$index") to errorKind("a$index"))
        }
    }

    @Test
    fun `an unreadable job is an error`() {
        val path = job("a")
        val broken = mapOf(
            "a" to "{",
            "b" to File(path).readText(),
            "c" to File(path).readText().replace("\"schema_number\": 1", "\"schema_number\": 9"),
        )
        for ((id, text) in broken) {
            File(folder, "$id.json").writeText(text)
            runner { done }.start(File(folder, "$id.json").path)
            assertEquals("error" to "job", status(id) to errorKind(id), id)
        }
        runner { done }.start(File(folder, "missing.json").path)
        assertEquals("job", errorKind("missing"))
    }

    @Test
    fun `reads jobs from their folder only`() {
        val outside = listOf("/etc/passwd", "$folder/../a.json", "$folder/A.json", "$folder/a.txt", "$folder/x/a.json")
        for (path in outside) assertFailsWith<JobException>(path) { runner { done }.start(path) }
        assertTrue(results.list().isNullOrEmpty())
    }

    private fun runner(end: ProcessEnd? = null, execute: (Job) -> Measurements) = JobRunner(
        jobs = folder,
        results = results,
        versions = AppVersions("1", emptyMap()),
        device = DeviceDescription("", "", "", "", 26, "", "", 1, 1),
        howEnded = { end },
        execute = execute,
    )

    private fun job(id: String): String {
        val file = File(folder, "$id.json")
        file.writeText(golden("app_job_1.json").replace("solar-int8-3f2a\"", "$id\""))
        return file.path
    }

    private fun result(id: String) = Json.parseObject(File(results, "$id.json").readText(), id)

    private fun status(id: String) = result(id).string("status")

    private fun errorKind(id: String) = result(id).objectAt("error").string("kind")
}
