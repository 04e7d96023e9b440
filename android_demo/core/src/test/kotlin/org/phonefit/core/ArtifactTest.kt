package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs

class ArtifactTest {
    private val text = golden("artifact_1.json")

    @Test
    fun `reads what phonefit writes`() {
        val artifact = Artifact.parse(text, "artifact_1.json")
        val input = artifact.inputs.single()
        assertEquals(RuntimeName.TFLITE, artifact.runtime)
        assertEquals("XNNPACK 13/14", artifact.delegate)
        assertEquals(listOf(1, 32, 32, 3), input.shape)
        assertEquals(DataType.INT8 to Layout.NHWC, input.type to input.layout)
        assertEquals(0.0187 to -14, input.scale to input.zeroPoint)
        assertEquals(Resize.CROP to Interpolation.BILINEAR, artifact.preprocess.run { resize to interpolation })
        assertEquals(listOf("whole", "broken"), artifact.labels)
        assertIs<Decoding.Classification>(artifact.decoding)
    }

    @Test
    fun `refuses what it does not know`() {
        val changes = listOf(
            "\"schema_number\": 1" to "\"schema_number\": 2",
            "\"runtime\": \"tflite\",\n \"schema" to "\"runtime\": \"other\",\n \"schema",
            "\"dtype\": \"int8\"" to "\"dtype\": \"int4\"",
            "\"layout\": \"NHWC\"" to "\"layout\": \"CHWN\"",
            "\"resize\": \"crop\"" to "\"resize\": \"tile\"",
        )
        for ((old, new) in changes) {
            assertFailsWith<FormatException>(new) { Artifact.parse(text.replace(old, new), "artifact.json") }
        }
    }

    @Test
    fun `a picture must fit the input`() {
        val artifact = Artifact.parse(text.replace("32", "16"), "artifact.json")
        val input = TensorSpec("x", listOf(1, 3, 32, 32), DataType.FLOAT32)
        val picture = Picture(2, 2, ByteArray(12))
        assertFailsWith<FormatException> { toInput(picture, artifact.preprocess, input) }
    }
}
