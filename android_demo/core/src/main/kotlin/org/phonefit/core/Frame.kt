package org.phonefit.core

/** One plane of a camera's frame: [bytes] with a row every [rowStride] and a value every [pixelStride] bytes. */
class Plane(val bytes: ByteArray, val rowStride: Int, val pixelStride: Int) {
    internal fun at(column: Int, row: Int): Int = bytes[row * rowStride + column * pixelStride].toInt() and 0xFF
}

/**
 * A frame in YUV 4:2:0 as RGB: full-range BT.601, as in JPEG, which is what Android's cameras give.
 *
 * @param chromaBlue and [chromaRed] have half the width and height of [luma].
 */
fun yuvPicture(width: Int, height: Int, luma: Plane, chromaBlue: Plane, chromaRed: Plane): Picture {
    val rgb = ByteArray(width * height * Picture.CHANNELS)
    var target = 0
    for (row in 0 until height) {
        for (column in 0 until width) {
            // 16 fractional bits
            val y = (luma.at(column, row) shl 16) + (1 shl 15)
            val blue = chromaBlue.at(column / 2, row / 2) - 128
            val red = chromaRed.at(column / 2, row / 2) - 128
            rgb[target++] = toByte(y + 91881 * red)
            rgb[target++] = toByte(y - 22554 * blue - 46802 * red)
            rgb[target++] = toByte(y + 116130 * blue)
        }
    }
    return Picture(width, height, rgb)
}

private fun toByte(value: Int): Byte = (value shr 16).coerceIn(0, 255).toByte()

/**
 * The picture as a person sees it.
 *
 * @param orientation EXIF's: 1 upright; 2 mirrored; 3 turned by 180 degrees; 4 flipped; 5 to 8 the four with rows and
 *   columns exchanged. Others are taken as upright.
 */
fun upright(picture: Picture, orientation: Int): Picture {
    if (orientation !in 2..8) return picture
    val exchanged = orientation >= 5
    val width = if (exchanged) picture.height else picture.width
    val height = if (exchanged) picture.width else picture.height
    val fromRight = orientation in setOf(2, 3, 7, 8)
    val fromBottom = orientation in setOf(3, 4, 6, 7)
    val rgb = ByteArray(picture.rgb.size)
    var target = 0
    for (row in 0 until height) {
        for (column in 0 until width) {
            val across = if (exchanged) row else column
            val down = if (exchanged) column else row
            val x = if (fromRight) picture.width - 1 - across else across
            val y = if (fromBottom) picture.height - 1 - down else down
            val source = (y * picture.width + x) * Picture.CHANNELS
            for (channel in 0 until Picture.CHANNELS) rgb[target++] = picture.rgb[source + channel]
        }
    }
    return Picture(width, height, rgb)
}

/** EXIF's orientation of a frame that is upright after a clockwise turn by [degrees], a multiple of 90. */
fun orientationOf(degrees: Int): Int = when (degrees.mod(360)) {
    90 -> 6
    180 -> 3
    270 -> 8
    else -> 1
}

/** The picture at most [longest] pixels wide and high, for display. */
fun shrunk(picture: Picture, longest: Int): Picture {
    val size = maxOf(picture.width, picture.height)
    if (size <= longest) return picture
    val width = (picture.width.toLong() * longest / size).toInt().coerceAtLeast(1)
    val height = (picture.height.toLong() * longest / size).toInt().coerceAtLeast(1)
    val whole = Box(0f, 0f, picture.width.toFloat(), picture.height.toFloat())
    return resample(picture, width, height, Interpolation.BILINEAR, whole)
}
