package org.phonefit.core

/** An 8-bit RGB picture: red, green and blue of each pixel, row by row. */
class Picture(val width: Int, val height: Int, val rgb: ByteArray) {
    init {
        require(rgb.size == width * height * CHANNELS) { "${rgb.size} bytes for $width x $height RGB pixels" }
    }

    companion object {
        const val CHANNELS = 3

        /**
         * Lays pixels on white.
         *
         * @param argb 0xAARRGGBB by pixel, not premultiplied. Rounds as Pillow's `alpha_composite` does.
         */
        fun onWhite(width: Int, height: Int, argb: IntArray): Picture {
            val rgb = ByteArray(argb.size * CHANNELS)
            argb.forEachIndexed { index, pixel ->
                val alpha = pixel ushr 24
                for (channel in 0 until CHANNELS) {
                    val value = pixel shr (16 - 8 * channel) and 0xFF
                    rgb[index * CHANNELS + channel] = blendOnWhite(value, alpha).toByte()
                }
            }
            return Picture(width, height, rgb)
        }

        // AlphaComposite.c: weights with 7 fractional bits; division by 255 as a shift.
        private fun blendOnWhite(value: Int, alpha: Int): Int {
            val sum = value * (alpha shl 7) + 255 * ((255 - alpha) shl 7) + (0x80 shl 7)
            return ((sum shr 8) + sum shr 8) shr 7
        }
    }
}
