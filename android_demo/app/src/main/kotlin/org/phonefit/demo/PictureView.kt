package org.phonefit.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View
import org.phonefit.core.Detection

private const val HIGHEST_SHARE = 0.6
private const val TEXT_SP = 16f
private const val LINE_DP = 2f

/** A picture with the objects that were found in it. */
class PictureView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val filter = Paint(Paint.FILTER_BITMAP_FLAG)
    private val line = paint(R.color.box, Paint.Style.STROKE, pixels(TypedValue.COMPLEX_UNIT_DIP, LINE_DP))
    private val edge = paint(R.color.box_edge, Paint.Style.STROKE, 2 * line.strokeWidth)
    private val text = paint(R.color.box, Paint.Style.FILL, 0f)
    private val textBack = paint(R.color.box_edge, Paint.Style.FILL, 0f)
    private val place = RectF()
    private val box = RectF()
    private var bitmap: Bitmap? = null
    private var objects: List<Pair<String, Detection>> = emptyList()
    private var photoWidth = 1

    /** Shows a picture; [objects] are in pixels of a photo [photoWidth] wide, of which [bitmap] is a copy. */
    fun show(bitmap: Bitmap, objects: List<Pair<String, Detection>>, photoWidth: Int) {
        this.bitmap = bitmap
        this.objects = objects
        this.photoWidth = photoWidth
        requestLayout()
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val width = getDefaultSize(suggestedMinimumWidth, widthMeasureSpec)
        val shown = bitmap
        val wanted = if (shown == null) 0 else width * shown.height / shown.width
        val highest = (resources.displayMetrics.heightPixels * HIGHEST_SHARE).toInt()
        setMeasuredDimension(width, minOf(wanted, highest))
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val shown = bitmap ?: return
        val scale = minOf(width.toFloat() / shown.width, height.toFloat() / shown.height)
        val left = (width - shown.width * scale) / 2
        place.set(left, 0f, left + shown.width * scale, shown.height * scale)
        canvas.drawBitmap(shown, null, place, filter)
        val photoScale = place.width() / photoWidth
        for ((name, found) in objects) drawObject(canvas, name, found, photoScale)
    }

    private fun drawObject(canvas: Canvas, name: String, found: Detection, scale: Float) {
        box.set(
            place.left + found.box.left.toFloat() * scale,
            found.box.top.toFloat() * scale,
            place.left + found.box.right.toFloat() * scale,
            found.box.bottom.toFloat() * scale,
        )
        canvas.drawRect(box, edge)
        canvas.drawRect(box, line)
        val top = maxOf(box.top - text.textSize, 0f)
        canvas.drawRect(box.left, top, box.left + text.measureText(name), top + text.textSize, textBack)
        canvas.drawText(name, box.left, top + text.textSize - text.descent(), text)
    }

    private fun paint(colour: Int, style: Paint.Style, width: Float) = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(colour)
        this.style = style
        strokeWidth = width
        textSize = pixels(TypedValue.COMPLEX_UNIT_SP, TEXT_SP)
    }

    private fun pixels(unit: Int, value: Float): Float =
        TypedValue.applyDimension(unit, value, resources.displayMetrics)
}
