package org.phonefit.demo

import android.app.ActivityManager
import android.app.ApplicationExitInfo
import android.os.Build
import android.os.PowerManager
import android.system.OsConstants
import org.phonefit.core.ProcessEnd

// What only newer versions of Android tell; everything else in the app is there since the oldest that it runs on.

/** Maker and name of the system on a chip; the board's name before Android 12. */
internal fun systemOnChip(): String =
    if (Build.VERSION.SDK_INT >= 31) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE

/** 0 (none) to 6 (shutdown); null before Android 10. */
internal fun thermalStatus(power: PowerManager): Int? =
    if (Build.VERSION.SDK_INT >= 29) power.currentThermalStatus else null

/** Leaves [jobId] with the system, for [howEnded] to recognise this process by after it has ended. */
internal fun leaveNote(activities: ActivityManager, jobId: String) {
    if (Build.VERSION.SDK_INT >= 30) activities.setProcessStateSummary(jobId.toByteArray())
}

/** How the process that left the note [jobId] ended; null before Android 11 or where the system forgot it. */
internal fun howEnded(activities: ActivityManager, jobId: String): ProcessEnd? {
    if (Build.VERSION.SDK_INT < 30) return null
    val end = activities.getHistoricalProcessExitReasons(null, 0, 0)
        .find { it.processStateSummary?.decodeToString() == jobId } ?: return null
    val killed = end.reason == ApplicationExitInfo.REASON_SIGNALED && end.status == OsConstants.SIGKILL
    // phones that do not report the low memory killer show its kills as signals
    val outOfMemory = end.reason == ApplicationExitInfo.REASON_LOW_MEMORY ||
        (killed && !ActivityManager.isLowMemoryKillReportSupported())
    val words = listOfNotNull(reasonName(end.reason), end.description, "status ${end.status}", "${end.pss} KiB PSS")
    return ProcessEnd(outOfMemory, words.joinToString())
}

private fun reasonName(reason: Int): String = when (reason) {
    ApplicationExitInfo.REASON_ANR -> "not responding"
    ApplicationExitInfo.REASON_CRASH -> "exception"
    ApplicationExitInfo.REASON_CRASH_NATIVE -> "native crash"
    ApplicationExitInfo.REASON_EXCESSIVE_RESOURCE_USAGE -> "excessive use of resources"
    ApplicationExitInfo.REASON_EXIT_SELF -> "exit by itself"
    ApplicationExitInfo.REASON_LOW_MEMORY -> "killed for low memory"
    ApplicationExitInfo.REASON_SIGNALED -> "killed by a signal"
    ApplicationExitInfo.REASON_USER_REQUESTED -> "stopped by request"
    else -> "reason $reason"
}
