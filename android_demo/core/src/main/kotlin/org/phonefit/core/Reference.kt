package org.phonefit.core

// About 5 ms on a fast core.
private const val STEPS = 3_000_000

// The first rounds run before the method is compiled.
private const val UNTIMED = 3

@Volatile
private var sink = 0.0

/**
 * Nanoseconds that each of [count] rounds of a fixed loop of arithmetic took: a slower loop tells of a slower clock.
 * Only times within one job compare.
 */
internal fun referenceLoops(count: Int, nanoTime: () -> Long): List<Long> {
    if (count > 0) repeat(UNTIMED) { arithmetic() }
    return List(count) {
        val start = nanoTime()
        arithmetic()
        nanoTime() - start
    }
}

private fun arithmetic() {
    var whole = 1L
    var real = 1.0f
    repeat(STEPS) {
        // Knuth's MMIX generator; each step needs the one before, in both number formats
        whole = whole * 6364136223846793005L + 1442695040888963407L
        real = real * 0.999f + 1.0f
    }
    // kept, so that no compiler leaves the loop out
    sink = whole.toDouble() + real
}
