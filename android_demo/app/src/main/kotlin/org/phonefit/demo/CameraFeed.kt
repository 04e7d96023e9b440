package org.phonefit.demo

import android.annotation.SuppressLint
import android.graphics.ImageFormat
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.util.Size
import org.phonefit.core.Picture
import org.phonefit.core.Plane
import org.phonefit.core.orientationOf
import org.phonefit.core.upright
import org.phonefit.core.yuvPicture

private const val WIDTH = 640
private const val HEIGHT = 480
private const val FRAMES_IN_FLIGHT = 2

/**
 * Upright frames of the phone's camera, the newest as soon as the last was dealt with.
 *
 * @property handler of the thread that everything here happens on, [onFrame] and [onError] included.
 * @property displayDegrees how far the phone is turned from its natural orientation, anticlockwise.
 */
internal class CameraFeed(
    private val cameras: CameraManager,
    private val handler: Handler,
    private val displayDegrees: () -> Int,
    private val onFrame: (Picture) -> Unit,
    private val onError: (String) -> Unit,
) {
    private var stopped = false
    private var device: CameraDevice? = null
    private var reader: ImageReader? = null

    /** Opens the camera; the app must hold the permission. */
    fun start() {
        handler.post { attempt(::open) }
    }

    /** Closes the camera for good. */
    fun stop() {
        handler.post {
            stopped = true
            device?.close()
            reader?.close()
        }
    }

    @SuppressLint("MissingPermission") // asked for by MainActivity
    private fun open() {
        val id = cameras.cameraIdList.minByOrNull { if (facesBack(it)) 0 else 1 }
        if (id == null) {
            onError("no camera")
            return
        }
        val characteristics = cameras.getCameraCharacteristics(id)
        val size = frameSize(characteristics)
        val frames = ImageReader.newInstance(size.width, size.height, ImageFormat.YUV_420_888, FRAMES_IN_FLIGHT)
        reader = frames
        frames.setOnImageAvailableListener({ source -> deliver(source, characteristics) }, handler)
        cameras.openCamera(id, Opening(frames), handler)
    }

    private inner class Opening(private val frames: ImageReader) : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            device = camera
            if (stopped) camera.close() else attempt { startSession(camera, frames) }
        }

        override fun onDisconnected(camera: CameraDevice) {
            camera.close()
            if (!stopped) onError("another app took it")
        }

        override fun onError(camera: CameraDevice, error: Int) {
            camera.close()
            onError("error $error")
        }
    }

    @Suppress("DEPRECATION") // what takes its place came with API 28
    private fun startSession(camera: CameraDevice, frames: ImageReader) {
        val request = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
        request.addTarget(frames.surface)
        request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
        val callback = object : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession) {
                if (!stopped) attempt { session.setRepeatingRequest(request.build(), null, handler) }
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = onError("it refuses the format")
        }
        camera.createCaptureSession(listOf(frames.surface), callback, handler)
    }

    private fun deliver(source: ImageReader, characteristics: CameraCharacteristics) {
        if (stopped) return
        val image: Image = source.acquireLatestImage() ?: return
        val frame = image.use(::picture)
        onFrame(upright(frame, orientationOf(clockwiseTurn(characteristics))))
    }

    private fun picture(image: Image): Picture {
        val (luma, chromaBlue, chromaRed) = image.planes.map { plane ->
            val bytes = ByteArray(plane.buffer.remaining())
            plane.buffer.get(bytes)
            Plane(bytes, plane.rowStride, plane.pixelStride)
        }
        return yuvPicture(image.width, image.height, luma, chromaBlue, chromaRed)
    }

    private fun clockwiseTurn(characteristics: CameraCharacteristics): Int {
        val sensor = characteristics.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0
        val facing = characteristics.get(CameraCharacteristics.LENS_FACING)
        val display = displayDegrees()
        return if (facing == CameraCharacteristics.LENS_FACING_FRONT) sensor + display else sensor - display
    }

    private fun facesBack(id: String): Boolean =
        cameras.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING) ==
            CameraCharacteristics.LENS_FACING_BACK

    /** The smallest size of frames that has at least [WIDTH] x [HEIGHT], or the largest there is. */
    private fun frameSize(characteristics: CameraCharacteristics): Size {
        val map = characteristics.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
        val sizes = map?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty().sortedBy { it.width * it.height }
        return sizes.find { it.width >= WIDTH && it.height >= HEIGHT } ?: sizes.lastOrNull() ?: Size(WIDTH, HEIGHT)
    }

    private fun attempt(block: () -> Unit) {
        try {
            block()
        } catch (error: CameraAccessException) {
            onError(error.message.orEmpty())
        } catch (error: SecurityException) {
            onError(error.message.orEmpty())
        } catch (error: IllegalStateException) {
            // the camera was closed by the system in between
            onError(error.message.orEmpty())
        }
    }
}
