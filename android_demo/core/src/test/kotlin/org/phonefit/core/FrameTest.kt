package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals

class FrameTest {
    // a b c
    // d e f
    private val stored = letters("abc", "def")

    @Test
    fun `every EXIF orientation comes upright`() {
        val expected = listOf(
            letters("abc", "def"),
            letters("cba", "fed"),
            letters("fed", "cba"),
            letters("def", "abc"),
            letters("ad", "be", "cf"),
            letters("da", "eb", "fc"),
            letters("fc", "eb", "da"),
            letters("cf", "be", "ad"),
        )
        expected.forEachIndexed { index, picture ->
            val found = upright(stored, index + 1)
            assertEquals(picture.width to picture.height, found.width to found.height)
            assertContentEquals(picture.rgb, found.rgb, "orientation ${index + 1}")
        }
        assertContentEquals(stored.rgb, upright(stored, 0).rgb)
    }

    @Test
    fun `turns of a camera are orientations`() {
        assertEquals(listOf(1, 6, 3, 8, 8, 6), listOf(0, 90, 180, 270, -90, 450).map(::orientationOf))
    }

    @Test
    fun `colours of YUV`() {
        // luma, blue and red difference of JPEG's full-range BT.601
        val colours = listOf(
            Triple(255, 128, 128) to listOf(255, 255, 255),
            Triple(0, 128, 128) to listOf(0, 0, 0),
            Triple(76, 85, 255) to listOf(254, 0, 0),
            Triple(29, 255, 107) to listOf(0, 0, 254),
            Triple(150, 44, 21) to listOf(0, 255, 1),
        )
        for ((yuv, rgb) in colours) {
            val (luma, blue, red) = yuv.toList().map { Plane(byteArrayOf(it.toByte()), 1, 1) }
            assertEquals(rgb, yuvPicture(1, 1, luma, blue, red).rgb.map { it.toInt() and 0xFF }, "$yuv")
        }
    }

    @Test
    fun `strides of planes are followed`() {
        val luma = Plane(byteArrayOf(0, 0, 50, 0, 9, 9, 100, 0, 127, 0), rowStride = 6, pixelStride = 2)
        val grey = Plane(byteArrayOf(-128), 1, 1)
        val found = yuvPicture(2, 2, luma, grey, grey).rgb.toList().chunked(Picture.CHANNELS).map {
            it.distinct().single()
        }
        assertEquals(listOf<Byte>(0, 50, 100, 127), found)
    }

    @Test
    fun `a picture for the screen keeps its proportions`() {
        val large = Picture(100, 50, ByteArray(100 * 50 * 3) { 7 })
        val small = shrunk(large, 10)
        assertEquals(10 to 5, small.width to small.height)
        assertEquals(setOf<Byte>(7), small.rgb.toSet())
        assertEquals(stored, shrunk(stored, 3))
    }

    private fun letters(vararg rows: String): Picture {
        val rgb = rows.joinToString("").flatMap { letter -> List(Picture.CHANNELS) { (letter.code + it).toByte() } }
        return Picture(rows[0].length, rows.size, rgb.toByteArray())
    }
}
