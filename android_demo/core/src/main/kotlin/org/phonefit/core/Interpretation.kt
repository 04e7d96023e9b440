package org.phonefit.core

/** What a model says about a picture. */
sealed class Interpretation {
    /** Labels with their probabilities, the likeliest first. */
    class Labels(val labels: List<Pair<String, Double>>) : Interpretation()

    /** A number, such as an age. */
    class Number(val value: Double, val unit: String) : Interpretation()

    /** Objects by name, in pixels of the picture. */
    class Objects(val objects: List<Pair<String, Detection>>) : Interpretation()

    /** A unit vector, to be compared with that of another picture. */
    class Embedding(val vector: DoubleArray, val threshold: Double) : Interpretation()

    /** A stylised picture. */
    class Painted(val picture: Picture) : Interpretation()
}

/**
 * Reads a model's outputs as its description says.
 *
 * @param outputs as stored, in the model's order.
 * @param photoWidth of the picture before preprocessing, in pixels.
 * @throws FormatException if the outputs do not fit the description.
 */
fun interpret(artifact: Artifact, outputs: List<TensorData>, photoWidth: Int, photoHeight: Int): Interpretation {
    if (outputs.size != artifact.outputs.size) {
        throw FormatException(
            "${outputs.size} outputs, but ${artifact.file} is described with ${artifact.outputs.size}",
        )
    }
    fun real(index: Int): FloatArray = toReal(outputs[index], artifact.outputs[index])
    fun label(index: Int): String = artifact.labels.getOrElse(index) { "$index" }
    return when (val decoding = artifact.decoding) {
        is Decoding.Classification ->
            Interpretation.Labels(ranked(probabilities(real(0)).mapIndexed { index, share -> label(index) to share }))

        is Decoding.Regression -> Interpretation.Number(number(real(0), decoding), decoding.unit)

        is Decoding.MultiLabel -> {
            val shares = labelProbabilities(real(0))
            val present = shares.indices.filter { shares[it] >= decoding.thresholds.getOrElse(it) { 1.0 } }
            Interpretation.Labels(ranked(present.map { label(it) to shares[it] }))
        }

        is Decoding.Detection -> {
            val boxes = real(decoding.boxes)
            val scores = real(decoding.scores)
            val found = detections(boxes, scores, decoding, artifact.preprocess, photoWidth, photoHeight)
            Interpretation.Objects(found.map { label(it.label) to it })
        }

        is Decoding.Embedding -> Interpretation.Embedding(unitVector(real(0)), decoding.threshold)

        is Decoding.Style -> Interpretation.Painted(painted(real(0), artifact.outputs[0], decoding))
    }
}

private fun ranked(labels: List<Pair<String, Double>>) = labels.sortedByDescending { it.second }

private fun painted(output: FloatArray, spec: TensorSpec, decoding: Decoding.Style): Picture {
    val shape = spec.shape.takeLast(3)
    val channelsFirst = spec.layout != Layout.NHWC && shape.firstOrNull() == Picture.CHANNELS
    if (shape.size < 3 || (if (channelsFirst) shape.first() else shape.last()) != Picture.CHANNELS) {
        throw FormatException("output ${spec.name}: shape ${spec.shape} is no RGB picture")
    }
    val (height, width) = if (channelsFirst) shape.drop(1) else shape.take(2)
    return stylePicture(output, width, height, channelsFirst, decoding)
}
