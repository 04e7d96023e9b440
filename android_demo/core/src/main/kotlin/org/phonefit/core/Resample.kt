package org.phonefit.core

import kotlin.math.abs
import kotlin.math.ceil

/** A resampling filter of Pillow: [weight] is zero beyond [support]. */
enum class Interpolation(internal val support: Double) {
    BILINEAR(1.0) {
        override fun weight(distance: Double): Double {
            val x = abs(distance)
            return if (x < 1.0) 1.0 - x else 0.0
        }
    },
    BICUBIC(2.0) {
        override fun weight(distance: Double): Double {
            val x = abs(distance)
            return when {
                x < 1.0 -> ((A + 2.0) * x - (A + 3.0)) * x * x + 1
                x < 2.0 -> (((x - 5) * x + 8) * x - 4) * A
                else -> 0.0
            }
        }
    },
    ;

    internal abstract fun weight(distance: Double): Double

    private companion object {
        const val A = -0.5
    }
}

/** Part of a picture in its own pixels; float, since Pillow's C code computes with float there. */
class Box(val left: Float, val top: Float, val right: Float, val bottom: Float)

/**
 * Resizes [box] of a picture to [width] x [height] with antialiasing, equal to Pillow's `Image.resize` (13 and later) in
 * every byte: libImaging/Resample.c, weights in fixed point, two passes that are each rounded to 8 bits.
 */
fun resample(picture: Picture, width: Int, height: Int, interpolation: Interpolation, box: Box): Picture {
    val across = weights(picture.width, box.left, box.right, width, interpolation)
    val down = weights(picture.height, box.top, box.bottom, height, interpolation)
    val acrossNeeded = width != picture.width || box.left != 0f || box.right != width.toFloat()
    val downNeeded = height != picture.height || box.top != 0f || box.bottom != height.toFloat()
    val fewerRows = picture.height - height
    // the order of the passes shows in the rounding
    if (fewerRows > 0 && fewerRows > (picture.width - width) * 2) {
        val lower = if (downNeeded) vertical(picture, down, height, 0) else picture
        return if (acrossNeeded) horizontal(lower, across, width, 0, height) else lower
    }
    if (!acrossNeeded) return if (downNeeded) vertical(picture, down, height, 0) else picture
    if (!downNeeded) return horizontal(picture, across, width, 0, height)
    val firstRow = down.first[0]
    val endRow = down.first[height - 1] + down.count[height - 1]
    return vertical(horizontal(picture, across, width, firstRow, endRow), down, height, firstRow)
}

/** Fixed-point weights of each output position: of [count] input positions from [first] on, [stride] apart. */
private class Weights(val first: IntArray, val count: IntArray, val values: IntArray, val stride: Int)

private const val PRECISION_BITS = 32 - 8 - 2
private const val HALF = 1 shl (PRECISION_BITS - 1)

private fun weights(inSize: Int, from: Float, to: Float, outSize: Int, filter: Interpolation): Weights {
    val scale = (to - from).toDouble() / outSize
    val filterScale = maxOf(scale, 1.0)
    val support = filter.support * filterScale
    val stride = ceil(support).toInt() * 2 + 1
    val first = IntArray(outSize)
    val count = IntArray(outSize)
    val values = IntArray(outSize * stride)
    val real = DoubleArray(stride)
    val inverse = 1.0 / filterScale
    for (position in 0 until outSize) {
        val centre = from + (position + 0.5) * scale
        val start = maxOf((centre - support + 0.5).toInt(), 0)
        val size = minOf((centre + support + 0.5).toInt(), inSize) - start
        var sum = 0.0
        for (index in 0 until size) {
            real[index] = filter.weight((index + start - centre + 0.5) * inverse)
            sum += real[index]
        }
        for (index in 0 until size) {
            val weight = if (sum != 0.0) real[index] / sum else real[index]
            val rounding = if (weight < 0) -0.5 else 0.5
            values[position * stride + index] = (rounding + weight * (1 shl PRECISION_BITS)).toInt()
        }
        first[position] = start
        count[position] = size
    }
    return Weights(first, count, values, stride)
}

/** Resizes rows [firstRow] until [endRow]. */
private fun horizontal(source: Picture, weights: Weights, width: Int, firstRow: Int, endRow: Int): Picture {
    val result = ByteArray((endRow - firstRow) * width * Picture.CHANNELS)
    var target = 0
    for (row in firstRow until endRow) {
        for (column in 0 until width) {
            val start = (row * source.width + weights.first[column]) * Picture.CHANNELS
            weightedSum(source.rgb, start, Picture.CHANNELS, weights, column, result, target)
            target += Picture.CHANNELS
        }
    }
    return Picture(width, endRow - firstRow, result)
}

/** Resizes columns of a source whose first row is row [firstRow] of what the weights are for. */
private fun vertical(source: Picture, weights: Weights, height: Int, firstRow: Int): Picture {
    val rowBytes = source.width * Picture.CHANNELS
    val result = ByteArray(height * rowBytes)
    for (row in 0 until height) {
        val start = (weights.first[row] - firstRow) * rowBytes
        for (offset in 0 until rowBytes step Picture.CHANNELS) {
            weightedSum(source.rgb, start + offset, rowBytes, weights, row, result, row * rowBytes + offset)
        }
    }
    return Picture(source.width, height, result)
}

/** One output pixel: the weighted sum of pixels [step] bytes apart, from [start] on. */
private fun weightedSum(
    source: ByteArray,
    start: Int,
    step: Int,
    weights: Weights,
    position: Int,
    result: ByteArray,
    target: Int,
) {
    var red = HALF
    var green = HALF
    var blue = HALF
    var at = start
    val from = position * weights.stride
    for (index in from until from + weights.count[position]) {
        val weight = weights.values[index]
        red += (source[at].toInt() and 0xFF) * weight
        green += (source[at + 1].toInt() and 0xFF) * weight
        blue += (source[at + 2].toInt() and 0xFF) * weight
        at += step
    }
    result[target] = toByte(red)
    result[target + 1] = toByte(green)
    result[target + 2] = toByte(blue)
}

private fun toByte(sum: Int): Byte = (sum shr PRECISION_BITS).coerceIn(0, 255).toByte()
