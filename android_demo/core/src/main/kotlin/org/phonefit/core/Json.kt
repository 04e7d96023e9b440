package org.phonefit.core

/** A file that cannot be read as what it should be; the message says which value and what was expected. */
class FormatException(message: String) : Exception(message)

/** JSON text to and from plain Kotlin values: Map, List, String, Long, Double, Boolean and null (RFC 8259). */
object Json {
    /** @throws FormatException if [text] is not exactly one JSON value. */
    fun parse(text: String): Any? = JsonParser(text).parse()

    /**
     * @param what names the file in messages.
     * @throws FormatException if [text] is not one JSON object.
     */
    fun parseObject(text: String, what: String): JsonObject {
        val value = try {
            parse(text)
        } catch (error: FormatException) {
            throw FormatException("$what: not JSON: ${error.message}")
        }
        return asObject(value, what)
    }

    /** Compact text of maps, lists, strings, finite numbers, booleans and null. */
    fun write(value: Any?): String = StringBuilder().also { append(it, value) }.toString()

    private fun append(out: StringBuilder, value: Any?) {
        when (value) {
            null, is Boolean, is Int, is Long -> out.append(value)

            is Float, is Double -> {
                require((value as Number).toDouble().isFinite()) { "JSON has no $value" }
                out.append(value)
            }

            is String -> appendString(out, value)

            is List<*> -> appendAll(out, value, '[', ']') { append(out, it) }

            is Map<*, *> -> appendAll(out, value.entries, '{', '}') { (name, content) ->
                appendString(out, name as String)
                out.append(':')
                append(out, content)
            }

            else -> throw IllegalArgumentException("JSON has no ${value.javaClass.name}")
        }
    }

    private fun <T> appendAll(out: StringBuilder, items: Collection<T>, open: Char, close: Char, each: (T) -> Unit) {
        out.append(open)
        items.forEachIndexed { index, item ->
            if (index > 0) out.append(',')
            each(item)
        }
        out.append(close)
    }

    private fun appendString(out: StringBuilder, text: String) {
        out.append('"')
        for (char in text) {
            when {
                char == '"' || char == '\\' -> out.append('\\').append(char)
                char == '\n' -> out.append("\\n")
                char < ' ' -> out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
                else -> out.append(char)
            }
        }
        out.append('"')
    }
}

private class JsonParser(private val text: String) {
    private var position = 0

    fun parse(): Any? {
        val value = value(depth = 0)
        skipSpace()
        if (position < text.length) fail("unexpected '${text[position]}' after the value")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > DEEPEST) fail("nested deeper than $DEEPEST")
        skipSpace()
        return when (peek()) {
            '{' -> objectValue(depth)
            '[' -> arrayValue(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun objectValue(depth: Int): Map<String, Any?> {
        val values = LinkedHashMap<String, Any?>()
        position++
        skipSpace()
        if (accept('}')) return values
        do {
            skipSpace()
            if (peek() != '"') fail("expected a name in quotes")
            val name = string()
            skipSpace()
            if (!accept(':')) fail("expected ':' after \"$name\"")
            if (name in values) fail("\"$name\" is there twice")
            values[name] = value(depth + 1)
            skipSpace()
        } while (accept(','))
        if (!accept('}')) fail("expected ',' or '}'")
        return values
    }

    private fun arrayValue(depth: Int): List<Any?> {
        val values = ArrayList<Any?>()
        position++
        skipSpace()
        if (accept(']')) return values
        do {
            values += value(depth + 1)
            skipSpace()
        } while (accept(','))
        if (!accept(']')) fail("expected ',' or ']'")
        return values
    }

    private fun string(): String {
        val out = StringBuilder()
        position++
        while (true) {
            val char = peek()
            position++
            when {
                char == '"' -> return out.toString()
                char == '\\' -> out.append(escaped())
                char < ' ' -> fail("control character in a string")
                else -> out.append(char)
            }
        }
    }

    private fun escaped(): Char {
        val char = peek()
        position++
        return when (char) {
            '"', '\\', '/' -> char

            'b' -> '\b'

            'f' -> '\u000C'

            'n' -> '\n'

            'r' -> '\r'

            't' -> '\t'

            'u' -> {
                val digits = text.substring(position, minOf(position + 4, text.length))
                if (!HEX.matches(digits)) fail("\\u needs four hexadecimal digits")
                position += 4
                digits.toInt(16).toChar()
            }

            else -> fail("unknown escape \\$char")
        }
    }

    private fun number(): Any {
        val match = NUMBER.find(text, position)
        if (match == null || match.range.first != position) fail("expected a value")
        position = match.range.last + 1
        return match.value.toLongOrNull() ?: match.value.toDouble()
    }

    private fun word(word: String, value: Any?): Any? {
        if (!text.startsWith(word, position)) fail("expected a value")
        position += word.length
        return value
    }

    private fun skipSpace() {
        while (position < text.length && text[position] in " \t\r\n") position++
    }

    private fun peek(): Char = if (position < text.length) text[position] else fail("unexpected end")

    private fun accept(char: Char): Boolean {
        val found = position < text.length && text[position] == char
        if (found) position++
        return found
    }

    private fun fail(message: String): Nothing = throw FormatException("$message, at character $position")

    private companion object {
        const val DEEPEST = 100
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
        val HEX = Regex("[0-9a-fA-F]{4}")
    }
}
