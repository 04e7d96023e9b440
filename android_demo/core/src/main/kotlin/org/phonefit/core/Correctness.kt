package org.phonefit.core

import kotlin.math.abs
import kotlin.math.sqrt

/**
 * Outputs against the expected ones, in stored numbers.
 *
 * @property maxDifference the largest |found - expected| / span of the expected numbers, over all outputs.
 * @property cosine of found and expected, the smallest over all outputs.
 */
class Correctness(val maxDifference: Double, val cosine: Double, val passed: Boolean)

/**
 * Compares each output with what is expected. Where all expected numbers are equal the difference is taken as it is.
 * A number that is not finite fails, and counts as [Double.MAX_VALUE] in the difference and 0 in the cosine.
 *
 * @throws JobException if number, type or size of the outputs are others.
 */
fun compareOutputs(found: List<TensorData>, expected: List<Pair<TensorData, Double>>): Correctness {
    if (found.size != expected.size) {
        throw JobException(ErrorKind.MODEL, "the model gave ${found.size} outputs, expected are ${expected.size}")
    }
    val each = found.zip(expected) { output, (wanted, tolerance) -> compareOutput(output, wanted, tolerance) }
    return Correctness(each.maxOf { it.maxDifference }, each.minOf { it.cosine }, each.all { it.passed })
}

private fun compareOutput(found: TensorData, expected: TensorData, tolerance: Double): Correctness {
    if (found.type != expected.type || found.size != expected.size) {
        throw JobException(
            ErrorKind.MODEL,
            "an output is ${found.type.label} ${found.shape}, expected is ${expected.type.label} ${expected.shape}",
        )
    }
    var largest = 0.0
    var dot = 0.0
    var foundSquares = 0.0
    var expectedSquares = 0.0
    var low = Double.POSITIVE_INFINITY
    var high = Double.NEGATIVE_INFINITY
    for (index in 0 until found.size) {
        val a = found[index]
        val b = expected[index]
        if (!a.isFinite()) return Correctness(Double.MAX_VALUE, 0.0, passed = false)
        largest = maxOf(largest, abs(a - b))
        low = minOf(low, b)
        high = maxOf(high, b)
        dot += a * b
        foundSquares += a * a
        expectedSquares += b * b
    }
    val difference = if (high > low) largest / (high - low) else largest
    return Correctness(difference, cosine(dot, foundSquares, expectedSquares), difference <= tolerance)
}

/** a . b / (|a| |b|) from the dot product and the sums of squares; 1 where both are zero, 0 where one is. */
internal fun cosine(dot: Double, firstSquares: Double, secondSquares: Double): Double = when {
    firstSquares == 0.0 && secondSquares == 0.0 -> 1.0
    firstSquares == 0.0 || secondSquares == 0.0 -> 0.0
    else -> (dot / (sqrt(firstSquares) * sqrt(secondSquares))).coerceIn(-1.0, 1.0)
}
