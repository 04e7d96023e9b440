package org.phonefit.core

/** One found object: [label] is an index into the artifact's labels, [box] is in pixels of the photo, within it. */
class Detection(val label: Int, val score: Double, val box: Region)

/**
 * The objects found in a photo, by falling score; equal scores by label, then by row.
 *
 * Each label has its own greedy non-maximum suppression: from the highest score down (equal scores by row), a box stays
 * unless its intersection over union with one that stayed is above the threshold.
 *
 * @param boxes [N, 4]: centre x, centre y, width, height in pixels of the input.
 * @param scores [N, labels].
 * @param photoWidth in pixels, before preprocessing.
 */
fun detections(
    boxes: FloatArray,
    scores: FloatArray,
    decoding: Decoding.Detection,
    preprocess: Preprocess,
    photoWidth: Int,
    photoHeight: Int,
): List<Detection> {
    val count = boxes.size / 4
    require(count > 0 && boxes.size == count * 4 && scores.size % count == 0) {
        "${boxes.size} numbers of boxes and ${scores.size} scores"
    }
    val labels = scores.size / count
    val corners = List(count) { corners(boxes, it * 4) }
    val found = (0 until labels).flatMap { label ->
        val rows = (0 until count)
            .filter { scores[it * labels + label].toDouble() >= decoding.scoreThreshold }
            .sortedByDescending { scores[it * labels + label] }
        suppressed(rows, corners, decoding.iouThreshold).map { row ->
            Candidate(label, row, scores[row * labels + label])
        }
    }
    return found
        .sortedWith(compareByDescending<Candidate> { it.score }.thenBy { it.label }.thenBy { it.row })
        .take(decoding.most)
        .map { Detection(it.label, it.score.toDouble(), onPhoto(corners[it.row], preprocess, photoWidth, photoHeight)) }
}

private class Candidate(val label: Int, val row: Int, val score: Float)

private fun corners(boxes: FloatArray, start: Int): Region {
    val halfWidth = boxes[start + 2].toDouble() / 2
    val halfHeight = boxes[start + 3].toDouble() / 2
    return Region(
        boxes[start] - halfWidth,
        boxes[start + 1] - halfHeight,
        boxes[start] + halfWidth,
        boxes[start + 1] + halfHeight,
    )
}

/** The rows that stay, of rows in falling order of their score. */
private fun suppressed(rows: List<Int>, corners: List<Region>, threshold: Double): List<Int> {
    val kept = ArrayList<Int>()
    for (row in rows) {
        if (kept.none { overlap(corners[it], corners[row]) > threshold }) kept += row
    }
    return kept
}

/** Intersection over union; 0 where both are empty. */
private fun overlap(first: Region, second: Region): Double {
    val width = minOf(first.right, second.right) - maxOf(first.left, second.left)
    val height = minOf(first.bottom, second.bottom) - maxOf(first.top, second.top)
    val common = width.coerceAtLeast(0.0) * height.coerceAtLeast(0.0)
    val union = area(first) + area(second) - common
    return if (union > 0) common / union else 0.0
}

private fun area(box: Region): Double =
    (box.right - box.left).coerceAtLeast(0.0) * (box.bottom - box.top).coerceAtLeast(0.0)

private fun onPhoto(box: Region, preprocess: Preprocess, width: Int, height: Int): Region {
    val shown = region(width, height, preprocess)
    val across = (shown.right - shown.left) / preprocess.width
    val down = (shown.bottom - shown.top) / preprocess.height
    fun x(value: Double) = (shown.left + value * across).coerceIn(0.0, width.toDouble())
    fun y(value: Double) = (shown.top + value * down).coerceIn(0.0, height.toDouble())
    return Region(x(box.left), y(box.top), x(box.right), y(box.bottom))
}
