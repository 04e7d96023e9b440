package org.phonefit.core

internal fun asObject(value: Any?, path: String): JsonObject {
    if (value !is Map<*, *>) throw FormatException("$path: expected an object")
    return JsonObject(value.entries.associate { (name, content) -> name as String to content }, path)
}

/**
 * Typed access to the fields of one JSON object. Every method throws [FormatException] naming [path] and the field
 * where the field is missing or of another type; those ending in `OrNull` return null where it is missing or null.
 */
class JsonObject(private val values: Map<String, Any?>, private val path: String) {
    val names: Set<String> get() = values.keys

    fun string(name: String): String = required(name, stringOrNull(name))

    fun stringOrNull(name: String): String? = typed(name, "a string")

    fun long(name: String): Long = required(name, longOrNull(name))

    fun longOrNull(name: String): Long? = typed(name, "a whole number")

    fun int(name: String): Int = required(name, intOrNull(name))

    fun intOrNull(name: String): Int? {
        val value = longOrNull(name) ?: return null
        if (value !in Int.MIN_VALUE..Int.MAX_VALUE) wrong(name, "a whole number of 32 bits")
        return value.toInt()
    }

    fun double(name: String): Double = required(name, doubleOrNull(name))

    fun doubleOrNull(name: String): Double? = typed<Number>(name, "a number")?.toDouble()

    fun booleanOrNull(name: String): Boolean? = typed(name, "true or false")

    fun objectOrNull(name: String): JsonObject? = values[name]?.let { asObject(it, at(name)) }

    fun objectAt(name: String): JsonObject = required(name, objectOrNull(name))

    fun objects(name: String): List<JsonObject> =
        list(name).mapIndexed { index, value -> asObject(value, "${at(name)}[$index]") }

    fun strings(name: String): List<String> = list(name).map { it as? String ?: wrong(name, "a list of strings") }

    fun ints(name: String): List<Int> = list(name).map {
        val value = it as? Long ?: wrong(name, "a list of whole numbers")
        if (value !in Int.MIN_VALUE..Int.MAX_VALUE) wrong(name, "a list of whole numbers of 32 bits")
        value.toInt()
    }

    fun doubles(name: String): List<Double> = list(name).map {
        (it as? Number ?: wrong(name, "a list of numbers")).toDouble()
    }

    /** All fields as strings. */
    fun asStrings(): Map<String, String> = names.associateWith(::string)

    /** @throws FormatException if there are fields other than [known]. */
    fun refuseOthers(known: Set<String>) {
        val unknown = names - known
        if (unknown.isNotEmpty()) {
            throw FormatException("$path: unknown ${unknown.sorted().joinToString()}; known: ${known.joinToString()}")
        }
    }

    /** @throws FormatException if `schema_number` is not in 1..[newest]. */
    fun checkSchema(newest: Int) {
        val found = long("schema_number")
        if (found !in 1..newest) {
            throw FormatException(
                "$path: schema_number $found, but this app knows 1 to $newest; use an app and a phonefit of one version",
            )
        }
    }

    /** @throws FormatException saying that [name] should be [expected]. */
    fun wrong(name: String, expected: String): Nothing =
        throw FormatException("${at(name)}: expected $expected, got ${values[name]}")

    private fun list(name: String): List<*> = required(name, typed<List<*>>(name, "a list"))

    private inline fun <reified T> typed(name: String, expected: String): T? {
        val value = values[name] ?: return null
        return value as? T ?: wrong(name, expected)
    }

    private fun <T : Any> required(name: String, value: T?): T = value ?: throw FormatException("${at(name)}: missing")

    private fun at(name: String) = "$path: $name"
}
