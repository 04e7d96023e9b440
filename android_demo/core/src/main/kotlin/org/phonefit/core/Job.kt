package org.phonefit.core

/** Where phonefit puts what the app reads. */
object SharedFolder {
    const val MODELS = "/data/local/tmp/phonefit/app/models"
    const val JOBS = "/data/local/tmp/phonefit/app/jobs"
}

/** A file of raw little-endian numbers as stored in the model, without a header. */
open class TensorFile(val path: String, val sha256: String, val type: DataType, val shape: List<Int>)

/** What one output should be; [tolerance] is relative to the span of the expected numbers, see [compareOutputs]. */
class ExpectedFile(path: String, sha256: String, type: DataType, shape: List<Int>, val tolerance: Double) :
    TensorFile(path, sha256, type, shape)

/** Reading the battery's gauge: for [idleSeconds] with nothing running, then for at least [seconds] of inferences. */
class EnergyOptions(
    val idleSeconds: Double,
    val seconds: Double,
    val intervalMillis: Int,
    val waitForUnplugSeconds: Double,
)

/** One measurement, as described by `AppJob` in phonefit's `device_bench/app_job.py`. */
class Job(
    val id: String,
    val model: String,
    val sha256: String,
    val bytes: Long,
    val runtime: RuntimeName,
    val threads: Int,
    val warmups: Int,
    val repeats: Int,
    val seconds: Double?,
    val reference: Int,
    val inputs: List<TensorFile>,
    val expected: List<ExpectedFile>,
    val energy: EnergyOptions?,
    val memory: Boolean,
) {
    companion object {
        const val NEWEST_SCHEMA = 1
        private val ID = Regex("[a-z0-9][a-z0-9-]{0,63}")
        private val INPUT_FIELDS = setOf("path", "sha256", "dtype", "shape")
        private val EXPECTED_FIELDS = INPUT_FIELDS + "tolerance"
        private val ENERGY_FIELDS = setOf("idle_seconds", "seconds", "interval_ms", "wait_for_unplug_seconds")
        private val FIELDS = setOf(
            "schema_number", "id", "model", "description", "sha256", "bytes", "runtime", "threads", "warmups",
            "repeats", "seconds", "reference", "inputs", "expected", "energy", "memory",
        )

        /** Whether [id] may name a job and its files. */
        fun isId(id: String): Boolean = ID.matches(id)

        /**
         * @param what names the file in messages.
         * @throws FormatException if the text is not a job of a known schema, or a value is out of its range.
         */
        fun parse(text: String, what: String): Job {
            val json = Json.parseObject(text, what)
            json.checkSchema(NEWEST_SCHEMA)
            json.refuseOthers(FIELDS)
            val id = json.string("id")
            if (!isId(id)) json.wrong("id", "up to 64 of a-z, 0-9 and -")
            return Job(
                id = id,
                model = json.string("model"),
                sha256 = json.string("sha256"),
                bytes = json.long("bytes"),
                runtime = RuntimeName.of(json.string("runtime")),
                threads = json.count("threads", 1, lowest = 1, highest = 64),
                warmups = json.count("warmups", 5),
                repeats = json.count("repeats", 50, lowest = 1),
                seconds = json.positiveOrNull("seconds"),
                reference = json.count("reference", 0),
                inputs = json.objects("inputs").map(::inputFile).ifEmpty { json.wrong("inputs", "at least one") },
                expected = if ("expected" in json.names) json.objects("expected").map(::expectedFile) else emptyList(),
                energy = json.objectOrNull("energy")?.let(::energyOptions),
                memory = json.booleanOrNull("memory") ?: true,
            )
        }

        private fun inputFile(json: JsonObject): TensorFile {
            json.refuseOthers(INPUT_FIELDS)
            return TensorFile(
                json.string("path"),
                json.string("sha256"),
                DataType.of(json.string("dtype")),
                shape(json),
            )
        }

        private fun expectedFile(json: JsonObject): ExpectedFile {
            json.refuseOthers(EXPECTED_FIELDS)
            return ExpectedFile(
                json.string("path"),
                json.string("sha256"),
                DataType.of(json.string("dtype")),
                shape(json),
                json.double("tolerance").also { if (it < 0) json.wrong("tolerance", "0 or more") },
            )
        }

        private fun shape(json: JsonObject): List<Int> =
            json.ints("shape").also { if (it.any { size -> size < 1 }) json.wrong("shape", "sizes above 0") }

        private fun energyOptions(json: JsonObject): EnergyOptions {
            json.refuseOthers(ENERGY_FIELDS)
            return EnergyOptions(
                idleSeconds = json.positiveOrNull("idle_seconds") ?: json.double("idle_seconds"),
                seconds = json.positiveOrNull("seconds") ?: json.double("seconds"),
                intervalMillis = json.count("interval_ms", 100, lowest = 10),
                waitForUnplugSeconds = json.doubleOrNull("wait_for_unplug_seconds") ?: 0.0,
            )
        }

        private fun JsonObject.count(name: String, otherwise: Int, lowest: Int = 0, highest: Int = Int.MAX_VALUE): Int {
            val value = intOrNull(name) ?: otherwise
            if (value !in lowest..highest) wrong(name, "$lowest or more, at most $highest")
            return value
        }

        private fun JsonObject.positiveOrNull(name: String): Double? =
            doubleOrNull(name)?.also { if (it <= 0) wrong(name, "a number above 0") }
    }
}
