package org.phonefit.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.hardware.camera2.CameraManager
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.view.Display
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.Spinner
import android.widget.TextView
import java.io.IOException
import org.phonefit.core.Interpretation

private const val CHOOSE_PHOTO = 1
private const val ASK_CAMERA = 2
private const val MEMORY_EVERY_FRAMES = 30

/** Pick a model and a picture, and see what the model says about it. */
class MainActivity : Activity() {
    private val models by lazy { findViewById(R.id.models) as Spinner }
    private val photoButton by lazy { findViewById(R.id.photo) as Button }
    private val cameraButton by lazy { findViewById(R.id.camera) as Button }
    private val referenceButton by lazy { findViewById(R.id.keep_reference) as Button }
    private val result by lazy { findViewById(R.id.result) as TextView }
    private val figures by lazy { findViewById(R.id.figures) as TextView }
    private val picture by lazy { findViewById(R.id.picture) as PictureView }
    private val words by lazy { Words(resources) }
    private val worker = ModelWorker(::show) { message -> say(getString(R.string.model_failed, message)) }
    private var camera: CameraFeed? = null
    private var lastVector: DoubleArray? = null
    private var reference: DoubleArray? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        photoButton.setOnClickListener { choosePhoto() }
        cameraButton.setOnClickListener { if (camera == null) startCamera() else stopCamera() }
        referenceButton.setOnClickListener { keepReference() }
        listModels()
    }

    override fun onStop() {
        stopCamera()
        super.onStop()
    }

    override fun onDestroy() {
        worker.close()
        super.onDestroy()
    }

    private fun listModels() {
        val pushed = PushedModels.read()
        val hint = getString(if (pushed.models.isEmpty()) R.string.no_models else R.string.choose_picture)
        say((pushed.problems + hint).joinToString("\n"))
        val adapter = ArrayAdapter(this, android.R.layout.simple_spinner_item, pushed.models)
        adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
        models.adapter = adapter
        models.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) {
                reference = null
                worker.select(pushed.models[position])
            }

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
        photoButton.isEnabled = pushed.models.isNotEmpty()
        cameraButton.isEnabled = pushed.models.isNotEmpty()
    }

    private fun choosePhoto() {
        stopCamera()
        val intent = Intent(Intent.ACTION_GET_CONTENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        startActivityForResult(intent, CHOOSE_PHOTO)
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        val photo: Uri? = data?.data
        if (requestCode == CHOOSE_PHOTO && resultCode == RESULT_OK && photo != null) {
            worker.handler.post { open(photo) }
        }
    }

    private fun open(photo: Uri) {
        try {
            worker.run(readPhoto(this, photo), measureMemory = true)
        } catch (error: IOException) {
            photoFailed(error)
        } catch (error: SecurityException) {
            photoFailed(error)
        } catch (error: OutOfMemoryError) {
            photoFailed(error)
        }
    }

    private fun photoFailed(error: Throwable) = runOnUiThread {
        say(getString(R.string.photo_failed, error.message ?: error.javaClass.simpleName))
    }

    private fun keepReference() {
        reference = lastVector
        say(getString(R.string.reference_kept))
    }

    private fun startCamera() {
        if (!packageManager.hasSystemFeature(PackageManager.FEATURE_CAMERA_ANY)) {
            say(getString(R.string.camera_missing))
            return
        }
        if (checkSelfPermission(Manifest.permission.CAMERA) != PackageManager.PERMISSION_GRANTED) {
            requestPermissions(arrayOf(Manifest.permission.CAMERA), ASK_CAMERA)
            return
        }
        var frames = 0
        val display = getSystemService(DisplayManager::class.java).getDisplay(Display.DEFAULT_DISPLAY)
        camera = CameraFeed(
            getSystemService(CameraManager::class.java),
            worker.handler,
            displayDegrees = { display.rotation * 90 },
            onFrame = { frame -> worker.run(frame, measureMemory = frames++ % MEMORY_EVERY_FRAMES == 0) },
            onError = { message -> runOnUiThread { cameraFailed(message) } },
        ).also { it.start() }
        cameraButton.setText(R.string.camera_stop)
        // spoken on request only: the text changes with each frame
        result.accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_NONE
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<String>, grantResults: IntArray) {
        super.onRequestPermissionsResult(requestCode, permissions, grantResults)
        if (requestCode != ASK_CAMERA) return
        if (PackageManager.PERMISSION_GRANTED in grantResults) startCamera() else say(getString(R.string.camera_denied))
    }

    private fun stopCamera() {
        camera?.stop()
        camera = null
        cameraButton.setText(R.string.camera_start)
        result.accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
    }

    private fun cameraFailed(message: String) {
        stopCamera()
        say(getString(R.string.camera_failed, message))
    }

    private fun show(outcome: Outcome) {
        val interpretation = outcome.interpretation
        lastVector = (interpretation as? Interpretation.Embedding)?.vector
        referenceButton.visibility = if (lastVector == null) View.GONE else View.VISIBLE
        say(words.describe(interpretation, reference))
        figures.text = words.figures(outcome, R.string.figures)
        figures.contentDescription = words.figures(outcome, R.string.figures_description)
        val objects = (interpretation as? Interpretation.Objects)?.objects.orEmpty()
        picture.show(outcome.shown, objects, outcome.photoWidth)
        picture.contentDescription = getString(R.string.picture_description, result.text)
    }

    private fun say(text: String) {
        if (result.text.toString() != text) result.text = text
    }
}
