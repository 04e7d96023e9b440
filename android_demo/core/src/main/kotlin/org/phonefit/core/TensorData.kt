package org.phonefit.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** How a model file stores one number; [label] is numpy's name, as in the artifact's JSON. */
enum class DataType(val label: String, val bytes: Int) {
    FLOAT32("float32", 4),
    INT8("int8", 1),
    UINT8("uint8", 1),
    INT32("int32", 4),
    INT64("int64", 8),
    ;

    companion object {
        /** @throws FormatException with the known names if there is no such type. */
        fun of(label: String): DataType = entries.find { it.label == label }
            ?: throw FormatException("dtype $label: this app knows ${entries.joinToString { it.label }}")
    }
}

/**
 * Numbers as stored in a model's input or output.
 *
 * @property bytes direct, in native byte order, positioned at 0: what all three runtimes take without a copy.
 */
class TensorData(val type: DataType, val shape: List<Int>, val bytes: ByteBuffer) {
    val size: Int = elementCount(shape)

    init {
        require(bytes.capacity() == size * type.bytes) {
            "${bytes.capacity()} bytes for $size numbers of ${type.label}"
        }
    }

    /** The [index]-th stored number. */
    operator fun get(index: Int): Double = when (type) {
        DataType.FLOAT32 -> bytes.getFloat(index * 4).toDouble()
        DataType.INT8 -> bytes.get(index).toDouble()
        DataType.UINT8 -> (bytes.get(index).toInt() and 0xFF).toDouble()
        DataType.INT32 -> bytes.getInt(index * 4).toDouble()
        DataType.INT64 -> bytes.getLong(index * 8).toDouble()
    }

    companion object {
        /** Zeros of that type and shape. */
        fun allocate(type: DataType, shape: List<Int>): TensorData {
            val bytes = ByteBuffer.allocateDirect(elementCount(shape) * type.bytes)
            return TensorData(type, shape, bytes.order(ByteOrder.nativeOrder()))
        }

        /** Copies [raw], numbers in little-endian order: the order of every ABI that Android has. */
        fun of(type: DataType, shape: List<Int>, raw: ByteArray): TensorData = allocate(type, shape).apply {
            require(raw.size == bytes.capacity()) { "${raw.size} bytes for $shape of ${type.label}" }
            bytes.duplicate().put(raw)
        }

        /** Number of elements of a tensor of that shape. */
        fun elementCount(shape: List<Int>): Int = shape.fold(1, Int::times)
    }
}
