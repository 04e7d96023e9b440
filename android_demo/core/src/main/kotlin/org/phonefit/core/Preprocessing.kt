package org.phonefit.core

import kotlin.math.round

/**
 * Resizes a picture to the model's size, as phonefit's `models/data/preprocess.py` does, equal in every byte.
 *
 * [Resize.STRETCH] ignores the picture's proportions. [Resize.CROP] keeps them: the picture is scaled so that it covers
 * size / cropShare, then the centre is cut out. [Resize.LETTERBOX] keeps them and shows the whole picture on grey.
 */
fun prepare(picture: Picture, preprocess: Preprocess): Picture {
    val filter = preprocess.interpolation
    if (preprocess.resize == Resize.LETTERBOX) {
        val place = letterbox(picture.width, picture.height, preprocess)
        val whole = Box(0f, 0f, picture.width.toFloat(), picture.height.toFloat())
        return padded(resample(picture, place.width, place.height, filter, whole), place, preprocess)
    }
    val part = region(picture.width, picture.height, preprocess)
    val box = Box(part.left.toFloat(), part.top.toFloat(), part.right.toFloat(), part.bottom.toFloat())
    return resample(picture, preprocess.width, preprocess.height, filter, box)
}

/** Edges of a part of a picture, in its own pixels. */
class Region(val left: Double, val top: Double, val right: Double, val bottom: Double)

/** What the input shows of a picture of [width] x [height]; with [Resize.LETTERBOX] it reaches beyond the picture. */
fun region(width: Int, height: Int, preprocess: Preprocess): Region = when (preprocess.resize) {
    Resize.STRETCH -> Region(0.0, 0.0, width.toDouble(), height.toDouble())

    Resize.CROP -> centreRegion(width, height, preprocess)

    Resize.LETTERBOX -> {
        val place = letterbox(width, height, preprocess)
        Region(
            share(-place.left, width, place.width),
            share(-place.top, height, place.height),
            share(preprocess.width - place.left, width, place.width),
            share(preprocess.height - place.top, height, place.height),
        )
    }
}

private fun centreRegion(width: Int, height: Int, preprocess: Preprocess): Region {
    val leastWidth = round(preprocess.width / preprocess.cropShare).toInt()
    val leastHeight = round(preprocess.height / preprocess.cropShare).toInt()
    val scale = maxOf(leastWidth.toDouble() / width, leastHeight.toDouble() / height)
    val scaledWidth = maxOf(round(width * scale).toInt(), leastWidth)
    val scaledHeight = maxOf(round(height * scale).toInt(), leastHeight)
    val left = (scaledWidth - preprocess.width) / 2
    val top = (scaledHeight - preprocess.height) / 2
    return Region(
        share(left, width, scaledWidth),
        share(top, height, scaledHeight),
        share(left + preprocess.width, width, scaledWidth).coerceAtMost(width.toDouble()),
        share(top + preprocess.height, height, scaledHeight).coerceAtMost(height.toDouble()),
    )
}

private fun share(position: Int, size: Int, scaledSize: Int): Double = position.toLong() * size / scaledSize.toDouble()

private class Place(val left: Int, val top: Int, val width: Int, val height: Int)

private fun letterbox(width: Int, height: Int, preprocess: Preprocess): Place {
    val scale = minOf(preprocess.width.toDouble() / width, preprocess.height.toDouble() / height)
    val scaledWidth = round(width * scale).toInt().coerceIn(1, preprocess.width)
    val scaledHeight = round(height * scale).toInt().coerceIn(1, preprocess.height)
    return Place(
        (preprocess.width - scaledWidth) / 2,
        (preprocess.height - scaledHeight) / 2,
        scaledWidth,
        scaledHeight,
    )
}

private fun padded(scaled: Picture, place: Place, preprocess: Preprocess): Picture {
    val rgb = ByteArray(preprocess.width * preprocess.height * Picture.CHANNELS)
    rgb.fill(preprocess.padding.toByte())
    val rowBytes = scaled.width * Picture.CHANNELS
    for (row in 0 until scaled.height) {
        val target = ((place.top + row) * preprocess.width + place.left) * Picture.CHANNELS
        scaled.rgb.copyInto(rgb, target, row * rowBytes, (row + 1) * rowBytes)
    }
    return Picture(preprocess.width, preprocess.height, rgb)
}

/**
 * The picture as a model's first input: prepared, (pixel - mean) / std in float32, in the input's layout and, where the
 * input is quantised, stored = round(real / scale) + zeroPoint, saturated.
 *
 * @throws FormatException if the input is not one RGB picture of the size that [preprocess] gives.
 */
fun toInput(picture: Picture, preprocess: Preprocess, spec: TensorSpec): TensorData {
    val prepared = prepare(picture, preprocess)
    val channelsLast = channelsLast(preprocess, spec)
    val result = TensorData.allocate(spec.type, spec.shape)
    val pixels = prepared.width * prepared.height
    for (channel in 0 until Picture.CHANNELS) {
        val mean = preprocess.mean[channel].toFloat()
        val std = preprocess.std[channel].toFloat()
        // the 256 values that a channel can have, each computed once
        val values = FloatArray(256) { (it.toFloat() - mean) / std }
        for (pixel in 0 until pixels) {
            val value = values[prepared.rgb[pixel * Picture.CHANNELS + channel].toInt() and 0xFF]
            val index = if (channelsLast) pixel * Picture.CHANNELS + channel else channel * pixels + pixel
            store(result, index, value, spec)
        }
    }
    return result
}

private fun channelsLast(preprocess: Preprocess, spec: TensorSpec): Boolean {
    val first = listOf(1, Picture.CHANNELS, preprocess.height, preprocess.width)
    val last = listOf(1, preprocess.height, preprocess.width, Picture.CHANNELS)
    val channelsLast = spec.layout == Layout.NHWC || (spec.layout == Layout.OTHER && spec.shape == last)
    if (spec.shape != (if (channelsLast) last else first)) {
        throw FormatException(
            "input ${spec.name}: shape ${spec.shape} (${spec.layout}), but the picture has " +
                "${preprocess.height} x ${preprocess.width} RGB pixels",
        )
    }
    return channelsLast
}

private fun store(result: TensorData, index: Int, value: Float, spec: TensorSpec) {
    val bytes = result.bytes
    when (spec.type) {
        DataType.FLOAT32 -> bytes.putFloat(index * 4, value)

        DataType.INT8 -> bytes.put(index, quantised(value, spec, -128, 127).toByte())

        DataType.UINT8 -> bytes.put(index, quantised(value, spec, 0, 255).toByte())

        DataType.INT32, DataType.INT64 ->
            throw FormatException("input ${spec.name}: a picture cannot become ${spec.type.label}")
    }
}

// float32 arithmetic and rounding to even, as numpy does in `to_stored`
private fun quantised(value: Float, spec: TensorSpec, lowest: Int, highest: Int): Int {
    val scale = spec.scale ?: return value.toInt()
    val stored = round((value / scale.toFloat()).toDouble()).toFloat() + spec.zeroPoint
    return stored.coerceIn(lowest.toFloat(), highest.toFloat()).toInt()
}

/** Stored numbers as real ones: scale * (stored - zeroPoint) in float32. */
fun toReal(stored: TensorData, spec: TensorSpec): FloatArray {
    val scale = spec.scale?.toFloat() ?: return FloatArray(stored.size) { stored[it].toFloat() }
    return FloatArray(stored.size) { (stored[it].toFloat() - spec.zeroPoint) * scale }
}
