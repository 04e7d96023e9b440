package org.phonefit.check

import java.io.File
import kotlin.system.exitProcess
import org.phonefit.core.Vectors

/** Holds the core against the vectors of a folder; exit status 1 with the first differences when one differs. */
fun main(arguments: Array<String>) {
    val vectors = Vectors.of(File(arguments.single()))
    val differences = vectors.differences()
    if (differences.isNotEmpty()) {
        println("${differences.size} of ${vectors.counts.values.sum()} cases differ:")
        differences.take(20).forEach(::println)
        exitProcess(1)
    }
    println(vectors.counts.entries.joinToString { (kind, count) -> "$kind: $count" })
    println("largest difference ${vectors.largestDifference}")
}
