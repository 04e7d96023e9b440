package org.phonefit.demo

import android.content.res.Resources
import java.text.NumberFormat
import org.phonefit.core.Interpretation
import org.phonefit.core.cosine

private const val MOST_LABELS = 5
private const val MEBIBYTE = 1024.0 * 1024.0

/** What the models say, in the person's language. */
internal class Words(private val resources: Resources) {
    private val percent = NumberFormat.getPercentInstance()
    private val decimal = NumberFormat.getNumberInstance().apply { maximumFractionDigits = 1 }
    private val fine = NumberFormat.getNumberInstance().apply { maximumFractionDigits = 3 }

    /** @param reference the unit vector that an embedding is compared with, if there is one. */
    fun describe(interpretation: Interpretation, reference: DoubleArray?): String = when (interpretation) {
        is Interpretation.Labels -> list(interpretation.labels)

        is Interpretation.Objects -> list(interpretation.objects.map { (name, found) -> name to found.score })

        is Interpretation.Number ->
            resources.getString(R.string.number_unit, decimal.format(interpretation.value), interpretation.unit).trim()

        is Interpretation.Painted -> resources.getString(R.string.stylised)

        is Interpretation.Embedding -> comparison(interpretation, reference)
    }

    /** Latency, memory, runtime, delegate and precision; [template] is one of the strings for them. */
    fun figures(outcome: Outcome, template: Int): String = resources.getString(
        template,
        decimal.format(outcome.latencyNanoseconds / 1e6),
        decimal.format(outcome.memoryBytes / MEBIBYTE),
        outcome.artifact.runtime.label,
        outcome.delegate,
        outcome.artifact.precision,
    )

    private fun list(labels: List<Pair<String, Double>>): String {
        if (labels.isEmpty()) return resources.getString(R.string.nothing_found)
        return labels.take(MOST_LABELS).joinToString("\n") { (label, score) ->
            resources.getString(R.string.label_score, label, percent.format(score))
        }
    }

    private fun comparison(embedding: Interpretation.Embedding, reference: DoubleArray?): String {
        if (reference == null || reference.size != embedding.vector.size) {
            return resources.getString(R.string.reference_missing)
        }
        val similarity = cosine(reference, embedding.vector)
        val template = if (similarity >= embedding.threshold) R.string.same else R.string.different
        return resources.getString(template, fine.format(similarity))
    }
}
