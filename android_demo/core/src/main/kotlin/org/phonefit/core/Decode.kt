package org.phonefit.core

import kotlin.math.exp
import kotlin.math.round
import kotlin.math.sqrt

// What a model's outputs mean, as phonefit's models/decode.py says: computed in Double from real values.

/** Softmax: probabilities of sum 1. */
fun probabilities(logits: FloatArray): DoubleArray {
    val largest = logits.max()
    val powers = DoubleArray(logits.size) { exp(logits[it].toDouble() - largest) }
    val sum = powers.sum()
    return DoubleArray(logits.size) { powers[it] / sum }
}

/** The number in the decoding's unit. */
fun number(output: FloatArray, decoding: Decoding.Regression): Double {
    val value = when (decoding.reads) {
        RegressionReads.OUTPUT -> output.single().toDouble()

        RegressionReads.EXPECTED_INDEX ->
            probabilities(output).foldIndexed(0.0) { index, sum, share -> sum + share * index }

        RegressionReads.EXPECTED_COUNT -> output.sumOf { sigmoid(it) }
    }
    val real = decoding.scale * value + decoding.offset
    return real
        .coerceAtLeast(decoding.minimum ?: Double.NEGATIVE_INFINITY)
        .coerceAtMost(decoding.maximum ?: Double.POSITIVE_INFINITY)
}

/** Probability of each label by itself; it is present where this reaches its threshold. */
fun labelProbabilities(logits: FloatArray): DoubleArray = DoubleArray(logits.size) { sigmoid(logits[it]) }

private fun sigmoid(value: Float): Double = 1.0 / (1.0 + exp(-value.toDouble()))

/** The vector at length 1; zeros stay zeros. */
fun unitVector(output: FloatArray): DoubleArray {
    val length = sqrt(output.sumOf { it.toDouble() * it })
    return DoubleArray(output.size) { if (length > 0) output[it] / length else 0.0 }
}

/** Cosine of the angle between two unit vectors, -1..1. */
fun cosine(first: DoubleArray, second: DoubleArray): Double {
    require(first.size == second.size) { "vectors of ${first.size} and ${second.size} numbers" }
    return first.indices.sumOf { first[it] * second[it] }.coerceIn(-1.0, 1.0)
}

/**
 * A picture of [width] x [height] from one output value for each channel and pixel: scale * output + offset, rounded
 * half to even and held in 0..255.
 *
 * @param channelsFirst whether the output is [3, height, width], not [height, width, 3].
 */
fun stylePicture(
    output: FloatArray,
    width: Int,
    height: Int,
    channelsFirst: Boolean,
    decoding: Decoding.Style,
): Picture {
    val pixels = width * height
    require(output.size == pixels * Picture.CHANNELS) { "${output.size} numbers for $width x $height RGB pixels" }
    val rgb = ByteArray(output.size) { index ->
        val channel = index % Picture.CHANNELS
        val value = output[if (channelsFirst) channel * pixels + index / Picture.CHANNELS else index]
        round(value * decoding.scale + decoding.offset).coerceIn(0.0, 255.0).toInt().toByte()
    }
    return Picture(width, height, rgb)
}
