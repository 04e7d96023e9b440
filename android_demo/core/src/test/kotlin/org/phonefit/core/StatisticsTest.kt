package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class StatisticsTest {
    @Test
    fun `the median is in the middle`() {
        assertEquals(30.0, median(listOf(40L, 10L, 30L)))
        assertEquals(25.0, median(listOf(40L, 10L, 20L, 30L)))
        assertEquals(5.0, median(listOf(5L)))
        assertFailsWith<IllegalArgumentException> { median(emptyList()) }
    }
}
