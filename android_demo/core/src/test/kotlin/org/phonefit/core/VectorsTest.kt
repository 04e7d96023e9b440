package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals

class VectorsTest {
    @Test
    fun `Kotlin and Python agree`() {
        val vectors = Vectors(resource("cases.json").decodeToString(), resource("data.bin"))
        assertEquals(emptyList(), vectors.differences())
        val kinds = listOf("classification", "detection", "embedding", "multi_label", "regression", "style")
        assertEquals(kinds.associateWith { 2 } + ("preprocessing" to 12), vectors.counts)
    }

    private fun resource(name: String): ByteArray =
        checkNotNull(javaClass.getResourceAsStream("/vectors/$name")).use { it.readBytes() }
}
