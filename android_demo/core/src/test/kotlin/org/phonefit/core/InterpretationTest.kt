package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs

class InterpretationTest {
    private val preprocess = Preprocess(10, 10, List(3) { 0.0 }, List(3) { 1.0 }, resize = Resize.STRETCH)

    @Test
    fun `labels come with the likeliest first`() {
        val artifact = artifact(Decoding.Classification, output(2, scale = 0.05, zeroPoint = 3))
        val stored = TensorData.of(DataType.INT8, listOf(1, 2), byteArrayOf(3, 43))
        val labels = assertIs<Interpretation.Labels>(interpret(artifact, listOf(stored), 9, 9)).labels
        // (43 - 3) * 0.05 = 2: e^2 / (1 + e^2)
        assertEquals(listOf("broken", "whole"), labels.map { it.first })
        assertEquals(0.8808, labels.first().second, 1e-4)
    }

    @Test
    fun `of several labels only those above their threshold come`() {
        val artifact = artifact(Decoding.MultiLabel(listOf(0.6, 0.6)), output(2))
        val labels = assertIs<Interpretation.Labels>(interpret(artifact, listOf(stored(0, 1)), 9, 9)).labels
        assertEquals(listOf("broken"), labels.map { it.first })
    }

    @Test
    fun `objects are in pixels of the photo`() {
        val decoding = Decoding.Detection(boxes = 1, scores = 0, scoreThreshold = 0.5, iouThreshold = 0.5, most = 9)
        val artifact = artifact(decoding, output(1, 2), output(1, 4))
        val outputs = listOf(stored(0, 1, shape = listOf(1, 1, 2)), stored(5, 5, 2, 4, shape = listOf(1, 1, 4)))
        val (name, found) = assertIs<Interpretation.Objects>(interpret(artifact, outputs, 100, 50)).objects.single()
        assertEquals("broken", name)
        assertEquals(listOf(40.0, 15.0, 60.0, 35.0), found.box.run { listOf(left, top, right, bottom) })
    }

    @Test
    fun `a stylised picture is found in either layout`() {
        val decoding = Decoding.Style(scale = 1.0, offset = 0.0)
        val first = artifact(decoding, output(3, 2, 1))
        val last = artifact(decoding, output(2, 1, 3))
        val expected = byteArrayOf(1, 3, 5, 2, 4, 6)
        val cases = listOf(first to intArrayOf(1, 2, 3, 4, 5, 6), last to intArrayOf(1, 3, 5, 2, 4, 6))
        for ((artifact, values) in cases) {
            val stored = stored(*values, shape = artifact.outputs.single().shape)
            val painted = assertIs<Interpretation.Painted>(interpret(artifact, listOf(stored), 9, 9)).picture
            assertEquals(1 to 2, painted.width to painted.height)
            assertContentEquals(expected, painted.rgb)
        }
        assertFailsWith<FormatException> { interpret(artifact(decoding, output(6)), listOf(stored(1)), 9, 9) }
    }

    @Test
    fun `other outputs than described are refused`() {
        val artifact = artifact(Decoding.Classification, output(2))
        assertFailsWith<FormatException> { interpret(artifact, emptyList(), 9, 9) }
    }

    private fun artifact(decoding: Decoding, vararg outputs: TensorSpec) = Artifact(
        file = "model.tflite",
        runtime = RuntimeName.TFLITE,
        delegate = "XNNPACK",
        precision = "int8",
        sha256 = "",
        bytes = 1,
        inputs = emptyList(),
        outputs = outputs.asList(),
        task = "",
        labels = listOf("whole", "broken"),
        preprocess = preprocess,
        decoding = decoding,
    )

    private fun output(vararg shape: Int, scale: Double = 1.0, zeroPoint: Int = 0) =
        TensorSpec("output", listOf(1) + shape.asList(), DataType.INT8, Layout.OTHER, scale, zeroPoint)

    private fun stored(vararg values: Int, shape: List<Int> = listOf(1, values.size)): TensorData =
        TensorData.of(DataType.INT8, shape, ByteArray(values.size) { values[it].toByte() })
}
