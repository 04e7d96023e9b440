package org.phonefit.core

/** What a regression's value is made from; see phonefit's `models/decoding.py`. */
enum class RegressionReads { OUTPUT, EXPECTED_INDEX, EXPECTED_COUNT }

/** How the outputs of a model are read: one class for each kind of task. */
sealed class Decoding {
    /** One label of several, from logits. */
    data object Classification : Decoding()

    /** A number: scale * value + offset, within minimum..maximum. */
    class Regression(
        val reads: RegressionReads,
        val scale: Double,
        val offset: Double,
        val minimum: Double?,
        val maximum: Double?,
        val unit: String,
    ) : Decoding()

    /** Any number of labels: those whose probability reaches their threshold. */
    class MultiLabel(val thresholds: List<Double>) : Decoding()

    /** Boxes with labels; [boxes] and [scores] say which of the outputs they are. */
    class Detection(
        val boxes: Int,
        val scores: Int,
        val scoreThreshold: Double,
        val iouThreshold: Double,
        val most: Int,
    ) : Decoding()

    /** A vector; two pictures show the same when their cosine reaches [threshold]. */
    class Embedding(val threshold: Double) : Decoding()

    /** A picture: each channel is scale * output + offset. */
    class Style(val scale: Double, val offset: Double) : Decoding()

    internal companion object {
        /** @throws FormatException if the kind is not known or a value does not fit. */
        fun parse(json: JsonObject): Decoding = when (json.string("kind")) {
            "classification" -> Classification

            "regression" -> Regression(
                reads = when (json.stringOrNull("reads")) {
                    "output", null -> RegressionReads.OUTPUT
                    "expected_index" -> RegressionReads.EXPECTED_INDEX
                    "expected_count" -> RegressionReads.EXPECTED_COUNT
                    else -> json.wrong("reads", "output, expected_index or expected_count")
                },
                scale = json.doubleOrNull("scale") ?: 1.0,
                offset = json.doubleOrNull("offset") ?: 0.0,
                minimum = json.doubleOrNull("minimum"),
                maximum = json.doubleOrNull("maximum"),
                unit = json.stringOrNull("unit").orEmpty(),
            )

            "multi_label" -> MultiLabel(json.doubles("thresholds"))

            "detection" -> Detection(
                boxes = json.intOrNull("boxes") ?: 0,
                scores = json.intOrNull("scores") ?: 1,
                scoreThreshold = json.doubleOrNull("score_threshold") ?: 0.25,
                iouThreshold = json.doubleOrNull("iou_threshold") ?: 0.45,
                most = json.intOrNull("most") ?: 100,
            )

            "embedding" -> Embedding(json.doubleOrNull("threshold") ?: 0.5)

            "style" -> Style(json.doubleOrNull("scale") ?: 255.0, json.doubleOrNull("offset") ?: 0.0)

            else -> json.wrong("kind", "a kind of decoding that this app knows")
        }
    }
}
