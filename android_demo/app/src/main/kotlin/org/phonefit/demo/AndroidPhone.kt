package org.phonefit.demo

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import android.os.Process
import android.os.SystemClock
import org.phonefit.core.AppVersions
import org.phonefit.core.DeviceDescription
import org.phonefit.core.GaugeReading
import org.phonefit.core.Phone

private const val KIBIBYTE = 1024L

/** Proportional set size of this process, in bytes. */
internal fun pssBytes(): Long = Debug.getPss() * KIBIBYTE

/** What the app is built with. */
internal fun appVersions(context: Context): AppVersions {
    val name = "phonefit_runtimes.json"
    val text = context.assets.open(name).bufferedReader().use { it.readText() }
    return AppVersions.parse(text, name)
}

/** This phone, as Android describes it. */
internal fun describeDevice(context: Context): DeviceDescription {
    val memory = ActivityManager.MemoryInfo()
    context.getSystemService(ActivityManager::class.java).getMemoryInfo(memory)
    val abis = if (Process.is64Bit()) Build.SUPPORTED_64_BIT_ABIS else Build.SUPPORTED_32_BIT_ABIS
    return DeviceDescription(
        manufacturer = Build.MANUFACTURER,
        model = Build.MODEL,
        soc = systemOnChip(),
        abi = abis.first(),
        sdk = Build.VERSION.SDK_INT,
        androidVersion = Build.VERSION.RELEASE,
        fingerprint = Build.FINGERPRINT,
        cores = Runtime.getRuntime().availableProcessors(),
        ramBytes = memory.totalMem,
    )
}

/** The phone's clocks, memory, temperature and battery. */
internal class AndroidPhone(private val context: Context) : Phone {
    private val battery = context.getSystemService(BatteryManager::class.java)
    private val power = context.getSystemService(PowerManager::class.java)

    override fun nanoTime(): Long = System.nanoTime()

    override fun elapsedRealtimeNanos(): Long = SystemClock.elapsedRealtimeNanos()

    override fun sleep(millis: Long) = Thread.sleep(millis)

    override fun pssBytes(): Long = org.phonefit.demo.pssBytes()

    override fun thermalStatus(): Int? = thermalStatus(power)

    override fun gauge(): GaugeReading {
        val state: Intent? = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        return GaugeReading(
            elapsedMillis = SystemClock.elapsedRealtime(),
            currentMicroamperes = property(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW),
            chargeMicroampereHours = property(BatteryManager.BATTERY_PROPERTY_CHARGE_COUNTER),
            voltageMillivolts = state?.getIntExtra(BatteryManager.EXTRA_VOLTAGE, 0)?.takeIf { it > 0 },
            plugged = state?.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) ?: 0,
        )
    }

    // a property that the phone does not have reads as the least Int; before Android 9, as 0
    private fun property(id: Int): Int? = battery.getIntProperty(id).takeIf {
        it != Int.MIN_VALUE && (it != 0 || Build.VERSION.SDK_INT >= 28)
    }
}
