package org.phonefit.demo

import android.app.Activity
import android.app.ActivityManager
import android.os.Bundle
import android.os.PowerManager
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import java.io.File
import java.io.IOException
import java.util.Collections
import org.phonefit.core.Benchmark
import org.phonefit.core.Job
import org.phonefit.core.JobException
import org.phonefit.core.JobRunner
import org.phonefit.core.Measurements
import org.phonefit.core.SharedFolder
import org.phonefit.demo.runtimes.runtime

private const val TAG = "phonefit"
private const val LONGEST_MILLIS = 4L * 60 * 60 * 1000

/**
 * Runs the job that the extra `job` names and leaves its result in files/results/ID.json.
 *
 * The phone stays awake meanwhile, also when USB is unplugged. Started by `am start` only.
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_benchmark)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val path = intent.getStringExtra("job")
        if (path == null) {
            Log.e(TAG, "no job: start with --es job ${SharedFolder.JOBS}/ID.json")
            finish()
        } else if (STARTED.add(path)) {
            Thread({ runAwake(path) }, "benchmark").start()
        }
    }

    private fun runAwake(path: String) {
        val wakeLock = getSystemService(PowerManager::class.java)
            .newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "phonefit:benchmark")
        wakeLock.acquire(LONGEST_MILLIS)
        try {
            val result = runner().start(path)
            Log.i(TAG, "$path: ${result?.status?.label ?: "was done before"}")
        } catch (error: JobException) {
            Log.e(TAG, error.message, error)
        } catch (error: IOException) {
            Log.e(TAG, "$path: its result cannot be written", error)
        } finally {
            wakeLock.release()
        }
        runOnUiThread { showDone() }
    }

    private fun runner(): JobRunner {
        val activities = getSystemService(ActivityManager::class.java)
        return JobRunner(
            jobs = File(SharedFolder.JOBS),
            results = File(filesDir, "results"),
            versions = appVersions(this),
            device = describeDevice(this),
            howEnded = { id -> howEnded(activities, id) },
            execute = { job -> execute(activities, job) },
        )
    }

    private fun execute(activities: ActivityManager, job: Job): Measurements {
        leaveNote(activities, job.id)
        val benchmark = Benchmark(AndroidPhone(this), runtime(job.runtime)) { Log.i(TAG, "${job.id}: $it") }
        return benchmark.run(job)
    }

    private fun showDone() {
        window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        (findViewById(R.id.state) as TextView).setText(R.string.benchmark_done)
        (findViewById(R.id.hint) as TextView).text = ""
    }

    private companion object {
        // jobs of this process: the activity may be created again while one runs
        val STARTED: MutableSet<String> = Collections.synchronizedSet(HashSet())
    }
}
