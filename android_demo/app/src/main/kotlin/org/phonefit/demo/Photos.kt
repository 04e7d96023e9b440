package org.phonefit.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import java.io.File
import java.io.IOException
import org.phonefit.core.Picture
import org.phonefit.core.shrunk
import org.phonefit.core.upright

// What fits into the app's memory with room to spare; larger photos are halved when they are decoded.
private const val MOST_PIXELS = 32_000_000L
private const val LONGEST_SHOWN = 1024

/**
 * Reads a photo that the person chose: upright, transparency on white.
 *
 * @throws IOException if it cannot be read or decoded.
 */
@SuppressLint("ExifInterface") // the orientation is all that is needed of it
internal fun readPhoto(context: Context, photo: Uri): Picture {
    val copy = File.createTempFile("photo", null, context.cacheDir)
    try {
        val source = context.contentResolver.openInputStream(photo) ?: throw IOException("$photo is gone")
        source.use { stream -> copy.outputStream().use { stream.copyTo(it) } }
        val orientation = ExifInterface(copy.path)
            .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        return upright(decode(copy), orientation)
    } finally {
        copy.delete()
    }
}

private fun decode(file: File): Picture {
    val options = BitmapFactory.Options()
    options.inJustDecodeBounds = true
    BitmapFactory.decodeFile(file.path, options)
    val pixels = options.outWidth.toLong() * options.outHeight
    options.inJustDecodeBounds = false
    options.inPremultiplied = false
    options.inSampleSize = generateSequence(1) { it * 2 }.first { pixels / (it * it) <= MOST_PIXELS }
    val bitmap = BitmapFactory.decodeFile(file.path, options) ?: throw IOException("not a picture of a known format")
    val argb = IntArray(bitmap.width * bitmap.height)
    bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    val picture = Picture.onWhite(bitmap.width, bitmap.height, argb)
    bitmap.recycle()
    return picture
}

/** The picture for the screen, made smaller where it is large. */
internal fun bitmapOf(picture: Picture): Bitmap {
    val shown = shrunk(picture, LONGEST_SHOWN)
    val argb = IntArray(shown.width * shown.height) { pixel ->
        var colour = 0xFF
        for (channel in 0 until Picture.CHANNELS) {
            colour = colour shl 8 or (shown.rgb[pixel * Picture.CHANNELS + channel].toInt() and 0xFF)
        }
        colour
    }
    return Bitmap.createBitmap(argb, shown.width, shown.height, Bitmap.Config.ARGB_8888)
}
