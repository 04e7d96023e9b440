package org.phonefit.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class JsonTest {
    @Test
    fun `reads every kind of value`() {
        val text = """ {"a": [1, -2.5e3, "x\"\\\n\u00e9\/", true, false, null], "b": {}, "c": []} """
        val expected = mapOf(
            "a" to listOf(1L, -2500.0, "x\"\\\né/", true, false, null),
            "b" to emptyMap<String, Any?>(),
            "c" to emptyList<Any?>(),
        )
        assertEquals<Any?>(expected, Json.parse(text))
    }

    @Test
    fun `reads back what it writes`() {
        val value = mapOf(
            "text" to "quotes \" and \\, a line\n, a tab\t, 日本",
            "numbers" to listOf(0L, Long.MAX_VALUE, 1e-300, 0.1),
            "nothing" to null,
            "truth" to true,
        )
        assertEquals<Any?>(value, Json.parse(Json.write(value)))
    }

    @Test
    fun `refuses what is not JSON`() {
        val broken = listOf(
            "", "{", "[1,]", "{\"a\" 1}", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "01", "1.", "NaN", "'a'", "\"a", "\"\\x\"",
            "\"\\u12g4\"", "tru", "1 2", "[".repeat(1000),
        )
        for (text in broken) assertFailsWith<FormatException>(text) { Json.parse(text) }
    }

    @Test
    fun `has no words for numbers that are not finite`() {
        for (value in listOf(Double.NaN, Double.POSITIVE_INFINITY, Float.NaN)) {
            assertFailsWith<IllegalArgumentException> { Json.write(value) }
        }
    }

    @Test
    fun `names the field that is wrong`() {
        val json = Json.parseObject("""{"a": "x", "list": [1, "b"]}""", "file.json")
        assertEquals("file.json: a: expected a whole number, got x", message { json.int("a") })
        assertEquals("file.json: b: missing", message { json.string("b") })
        assertEquals("file.json: unknown list; known: a", message { json.refuseOthers(setOf("a")) })
        assertFailsWith<FormatException> { json.strings("list") }
        assertFailsWith<FormatException> { json.objects("list") }
    }

    @Test
    fun `refuses a newer schema`() {
        val json = Json.parseObject("""{"schema_number": 2}""", "file.json")
        json.checkSchema(2)
        val message = message { json.checkSchema(1) }
        assertEquals(
            "file.json: schema_number 2, but this app knows 1 to 1; use an app and a phonefit of one version",
            message,
        )
    }

    private fun message(block: () -> Unit): String = assertFailsWith<FormatException> { block() }.message.orEmpty()
}
