package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class CorrectnessTest {
    @Test
    fun `the difference is relative to the span of what is expected`() {
        val compared = compareOutputs(listOf(bytes(0, 55, 100)), listOf(bytes(0, 50, 100) to 0.05))
        assertEquals(0.05, compared.maxDifference, 1e-12)
        assertTrue(compared.passed)
        assertFalse(compareOutputs(listOf(bytes(0, 56, 100)), listOf(bytes(0, 50, 100) to 0.05)).passed)
    }

    @Test
    fun `without a span it is taken as it is`() {
        val compared = compareOutputs(listOf(bytes(5, 7)), listOf(bytes(5, 5) to 1.0))
        assertEquals(2.0, compared.maxDifference)
        assertFalse(compared.passed)
    }

    @Test
    fun `the worst output counts`() {
        val found = listOf(bytes(1, 2), bytes(0, 3))
        val compared = compareOutputs(found, listOf(bytes(1, 2) to 0.0, bytes(3, 0) to 0.0))
        assertEquals(1.0 to 0.0, compared.maxDifference to compared.cosine)
        assertFalse(compared.passed)
    }

    @Test
    fun `zeros equal zeros`() {
        val compared = compareOutputs(listOf(bytes(0, 0)), listOf(bytes(0, 0) to 0.0))
        assertEquals(0.0 to 1.0, compared.maxDifference to compared.cosine)
        assertTrue(compared.passed)
    }

    @Test
    fun `a number that is not finite fails`() {
        val expected = TensorData.allocate(DataType.FLOAT32, listOf(1))
        for (value in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val found = TensorData.allocate(DataType.FLOAT32, listOf(1)).apply { bytes.putFloat(0, value) }
            val compared = compareOutputs(listOf(found), listOf(expected to 1e9))
            assertFalse(compared.passed)
            Json.write(compared.maxDifference)
        }
    }

    @Test
    fun `outputs of another kind are an error`() {
        val floats = TensorData.allocate(DataType.FLOAT32, listOf(2))
        for (found in listOf(emptyList(), listOf(floats), listOf(bytes(1)))) {
            assertFailsWith<JobException> { compareOutputs(found, listOf(bytes(1, 2) to 1.0)) }
        }
    }

    private fun bytes(vararg values: Int): TensorData =
        TensorData.of(DataType.INT8, listOf(values.size), ByteArray(values.size) { values[it].toByte() })
}
