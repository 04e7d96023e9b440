package org.phonefit.core

import java.io.File
import kotlin.math.abs

/**
 * Cases whose right answers phonefit's Python side computed, written by android_demo/check/vectors.py: cases.json with
 * one artifact for each case, and data.bin with raw arrays.
 */
class Vectors(cases: String, private val data: ByteArray) {
    private val cases = Json.parseObject(cases, "cases.json").also { it.checkSchema(1) }.objects("cases")

    /** Largest difference between two real numbers so far, relative where they are above 1. */
    var largestDifference = 0.0
        private set

    /** The number of cases by kind: a picture's preprocessing, or a kind of decoding. */
    val counts = sortedMapOf<String, Int>()

    /** Names of the cases that this code answers otherwise, each with what is different. */
    fun differences(): List<String> = cases.mapNotNull { case ->
        val name = case.string("name")
        val artifact = Artifact.parse(case.string("artifact"), name)
        val kind = if ("picture" in case.names) "preprocessing" else artifact.task
        counts[kind] = (counts[kind] ?: 0) + 1
        val different = if (kind == "preprocessing") preprocessing(case, artifact) else decoding(case, artifact)
        different?.let { "$name: $it" }
    }

    private fun preprocessing(case: JsonObject, artifact: Artifact): String? {
        val size = case.objectAt("picture")
        val offsets = case.objectAt("offsets")
        val picture = picture(size.int("width"), size.int("height"), size.int("channels"), offsets.int("picture"))
        val spec = artifact.inputs.single()
        val preprocess = artifact.preprocess
        val pixels = bytes(offsets.int("pixels"), preprocess.width * preprocess.height * Picture.CHANNELS)
        return different("pixels", prepare(picture, preprocess).rgb, pixels)
            ?: different(toInput(picture, preprocess, spec), tensor(offsets.int("input"), spec))
    }

    private fun decoding(case: JsonObject, artifact: Artifact): String? {
        val offsets = case.objectAt("offsets")
        val expected = case.objectAt("expected")
        fun output(index: Int = 0, name: String = "$index"): FloatArray {
            val spec = artifact.outputs[index]
            return toReal(tensor(offsets.int(name), spec), spec)
        }
        return when (val decoding = artifact.decoding) {
            is Decoding.Classification ->
                different("probability", probabilities(output()).asList(), expected.doubles("probabilities"))

            is Decoding.Regression ->
                different("number", listOf(number(output(), decoding)), listOf(expected.double("number")))

            is Decoding.MultiLabel -> {
                val found = labelProbabilities(output())
                val present = found.indices.filter { found[it] >= decoding.thresholds[it] }
                different("probability", found.asList(), expected.doubles("probabilities"))
                    ?: if (present == expected.ints("present")) null else "present: $present"
            }

            is Decoding.Detection -> {
                val photo = case.objectAt("photo")
                val found = detections(
                    output(decoding.boxes),
                    output(decoding.scores),
                    decoding,
                    artifact.preprocess,
                    photo.int("width"),
                    photo.int("height"),
                )
                different(found, expected.objects("detections"))
            }

            is Decoding.Embedding -> {
                val unit = unitVector(output())
                val cosine = cosine(unit, unitVector(output(name = "other")))
                different("unit vector", unit.asList(), expected.doubles("unit"))
                    ?: different("cosine", listOf(cosine), listOf(expected.double("cosine")))
                    ?: if (cosine >= decoding.threshold == expected.booleanOrNull("same")) null else "same: $cosine"
            }

            is Decoding.Style -> {
                val width = expected.int("width")
                val height = expected.int("height")
                val first = artifact.outputs.single().layout == Layout.NCHW
                val found = stylePicture(output(), width, height, first, decoding).rgb
                different("pixels", found, bytes(offsets.int("painted"), width * height * Picture.CHANNELS))
            }
        }
    }

    private fun different(found: List<Detection>, expected: List<JsonObject>): String? {
        val labels = found.map { it.label }
        if (labels != expected.map { it.int("label") }) return "labels: $labels"
        return different("score", found.map { it.score }, expected.map { it.double("score") }) ?: different(
            "edge",
            found.flatMap { listOf(it.box.left, it.box.top, it.box.right, it.box.bottom) },
            expected.flatMap { it.doubles("box") },
        )
    }

    private fun different(what: String, found: List<Double>, expected: List<Double>): String? {
        if (found.size != expected.size) return "$what: ${found.size} numbers, not ${expected.size}"
        val index = found.indices.firstOrNull { !near(found[it], expected[it]) } ?: return null
        return "$what: number $index is ${found[index]}, not ${expected[index]}"
    }

    private fun different(found: TensorData, expected: TensorData): String? = (0 until expected.size).firstOrNull {
        if (expected.type == DataType.FLOAT32) !near(found[it], expected[it]) else found[it] != expected[it]
    }?.let { "input: number $it is ${found[it]}, not ${expected[it]}" }

    private fun different(what: String, found: ByteArray, expected: ByteArray): String? {
        if (found.size != expected.size) return "$what: ${found.size} bytes, not ${expected.size}"
        val index = found.indices.firstOrNull { found[it] != expected[it] } ?: return null
        return "$what: byte $index is ${found[index]}, not ${expected[index]}"
    }

    private fun near(found: Double, expected: Double): Boolean {
        val difference = abs(found - expected) / maxOf(1.0, abs(expected))
        largestDifference = maxOf(largestDifference, difference)
        return difference <= TOLERANCE
    }

    private fun picture(width: Int, height: Int, channels: Int, offset: Int): Picture {
        val raw = bytes(offset, width * height * channels)
        if (channels == Picture.CHANNELS) return Picture(width, height, raw)
        val pixels = IntArray(width * height) { pixel ->
            val (red, green, blue, alpha) = List(4) { raw[pixel * 4 + it].toInt() and 0xFF }
            alpha shl 24 or (red shl 16) or (green shl 8) or blue
        }
        return Picture.onWhite(width, height, pixels)
    }

    private fun tensor(offset: Int, spec: TensorSpec): TensorData =
        TensorData.of(spec.type, spec.shape, bytes(offset, TensorData.elementCount(spec.shape) * spec.type.bytes))

    private fun bytes(offset: Int, count: Int): ByteArray = data.copyOfRange(offset, offset + count)

    companion object {
        private const val TOLERANCE = 1e-6

        /** @throws java.io.IOException if a file cannot be read. */
        fun of(folder: File) = Vectors(File(folder, "cases.json").readText(), File(folder, "data.bin").readBytes())
    }
}
