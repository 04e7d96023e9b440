package org.phonefit.core

/** How a job stands or ended. */
enum class Status(val label: String) {
    RUNNING("running"),
    OK("ok"),
    ERROR("error"),
    OUT_OF_MEMORY("out_of_memory"),
}

/** Which part failed: see `ErrorKind` in phonefit's `device_bench/app_job.py`. */
enum class ErrorKind(val label: String) {
    JOB("job"),
    FILE("file"),
    DIGEST("digest"),
    MODEL("model"),
    INFERENCE("inference"),
    CRASH("crash"),
}

/** A job that cannot go on, and why. */
class JobException(val kind: ErrorKind, message: String, cause: Throwable? = null) : Exception(message, cause)

/** What the app is built with: its own version, and that of each runtime. */
class AppVersions(val app: String, val runtimes: Map<String, String>) {
    companion object {
        private const val NEWEST_SCHEMA = 1

        /** @throws FormatException if the text is not such a file. */
        fun parse(text: String, what: String): AppVersions {
            val json = Json.parseObject(text, what)
            json.checkSchema(NEWEST_SCHEMA)
            return AppVersions(json.string("app_version"), json.objectAt("runtimes").asStrings())
        }
    }
}

/** The phone that a result belongs to. */
class DeviceDescription(
    val manufacturer: String,
    val model: String,
    val soc: String,
    val abi: String,
    val sdk: Int,
    val androidVersion: String,
    val fingerprint: String,
    val cores: Int,
    val ramBytes: Long,
)

/** One reading of the battery's gauge, in the phone's own units and sign; null for what it does not tell. */
class GaugeReading(
    val elapsedMillis: Long,
    val currentMicroamperes: Int?,
    val chargeMicroampereHours: Int?,
    val voltageMillivolts: Int?,
    val plugged: Int,
)

/** Which part of the job a gauge reading belongs to. */
enum class Phase(val label: String) { IDLE("idle"), RUN("run") }

/** A reading in its phase. */
class GaugeSample(val reading: GaugeReading, val phase: Phase)

/** Proportional set size of the process, in bytes. */
class MemoryUse(val beforeLoad: Long, val afterLoad: Long, val peak: Long)

/** What a finished job measured. Times are nanoseconds. */
class Measurements(
    val load: Long,
    val warmups: List<Long>,
    val samples: List<Long>,
    val referenceBefore: List<Long>,
    val referenceAfter: List<Long>,
    val timedFrom: Long,
    val timedUntil: Long,
    val memory: MemoryUse?,
    val thermalBefore: Int?,
    val thermalAfter: Int?,
    val gauge: List<GaugeSample>,
    val correctness: Correctness?,
)

/** What the app says about a job, as `AppResult` in phonefit's `device_bench/app_job.py`. */
class JobResult(
    val jobId: String,
    val status: Status,
    val versions: AppVersions,
    val device: DeviceDescription,
    val error: Pair<ErrorKind, String>? = null,
    val measurements: Measurements? = null,
) {
    /** The JSON text of the result. */
    fun toJson(): String = Json.write(
        mapOf(
            "schema_number" to 1,
            "job_id" to jobId,
            "status" to status.label,
            "error" to error?.let { (kind, message) -> mapOf("kind" to kind.label, "message" to message) },
            "app_version" to versions.app,
            "runtimes" to versions.runtimes,
            "device" to deviceFields(),
        ) + (measurements?.let(::measuredFields) ?: emptyMap()),
    )

    private fun deviceFields() = mapOf(
        "manufacturer" to device.manufacturer,
        "model" to device.model,
        "soc" to device.soc,
        "abi" to device.abi,
        "sdk" to device.sdk,
        "android_version" to device.androidVersion,
        "fingerprint" to device.fingerprint,
        "cores" to device.cores,
        "ram_bytes" to device.ramBytes,
    )

    private fun measuredFields(measured: Measurements) = mapOf(
        "load_ns" to measured.load,
        "warmup_ns" to measured.warmups,
        "sample_ns" to measured.samples,
        "reference_before_ns" to measured.referenceBefore,
        "reference_after_ns" to measured.referenceAfter,
        "timed_from_ns" to measured.timedFrom,
        "timed_until_ns" to measured.timedUntil,
        "memory" to measured.memory?.let {
            mapOf(
                "before_load_bytes" to it.beforeLoad,
                "after_load_bytes" to it.afterLoad,
                "peak_bytes" to it.peak,
            )
        },
        "thermal_before" to measured.thermalBefore,
        "thermal_after" to measured.thermalAfter,
        "gauge" to measured.gauge.map(::gaugeFields),
        "correctness" to measured.correctness?.let {
            mapOf("max_difference" to it.maxDifference, "cosine" to it.cosine, "passed" to it.passed)
        },
    )

    private fun gaugeFields(sample: GaugeSample) = mapOf(
        "elapsed_ms" to sample.reading.elapsedMillis,
        "current_ua" to sample.reading.currentMicroamperes,
        "charge_uah" to sample.reading.chargeMicroampereHours,
        "voltage_mv" to sample.reading.voltageMillivolts,
        "plugged" to sample.reading.plugged,
        "phase" to sample.phase.label,
    )

    companion object {
        /** Whether the text is a result of a job that has not ended, as far as its file tells. */
        fun isRunning(text: String, what: String): Boolean =
            Json.parseObject(text, what).string("status") == Status.RUNNING.label
    }
}
