package org.phonefit.core

/** The middle of the samples; between two, halfway. */
fun median(samples: Collection<Long>): Double {
    require(samples.isNotEmpty()) { "median of no samples" }
    val ordered = samples.sorted()
    return (ordered[(ordered.size - 1) / 2] + ordered[ordered.size / 2]) / 2.0
}
