"""AppDevice: a phone measured by its app, as `app:SERIAL`: as an app is scheduled, by the runtimes that it carries.

What makes the phone fit and takes everything back is the same as for `adb:SERIAL`; what runs the model is the app.
"""

import logging
import tempfile
from pathlib import Path

from phonefit.device_bench.android import AndroidDevice
from phonefit.device_bench.app_files import pack
from phonefit.device_bench.app_job import APPLICATION, AppCorrectness, AppEnergy, AppGaugeSample, AppResult, Phase
from phonefit.device_bench.conditions import read_conditions
from phonefit.device_bench.device import DeviceError, DeviceInfo, EnergyEstimate, Job, RawRun
from phonefit.device_bench.energy import EnergyUnavailableError, GaugeSample
from phonefit.device_bench.energy_meter import ENERGY_SECONDS, battery_capacity
from phonefit.device_bench.energy_run import gauge_energy
from phonefit.device_bench.phone_app import INSTALL_IT, PhoneApp
from phonefit.device_bench.power_parsers import volts_of
from phonefit.device_bench.reference import REFERENCE_REPEATS
from phonefit.device_bench.runtimes.detect import require

# How long a person has for pulling the cable, and for putting it in again.
_UNPLUG_SECONDS, _REPLUG_SECONDS = 120.0, 600.0
_log = logging.getLogger(__name__)


class AppDevice(AndroidDevice):
    """A phone with the app; arguments as of `AndroidDevice`."""

    def info(self) -> DeviceInfo:
        """Identify the phone.

        Raises:
            DeviceError: it cannot be reached; several are attached and none was named.
        """
        return super().info().model_copy(update={"kind": "app"})

    def prepare(self) -> None:
        """As `AndroidDevice.prepare`; the app must be there.

        Raises:
            DeviceError: as there, or the app is missing.
        """
        super().prepare()
        if self._app().installed() is None:
            raise DeviceError(f"the app {APPLICATION} is not on {self.info().name}; {INSTALL_IT}")
        self._app().make_folders()

    def run(self, job: Job) -> RawRun:
        """Run one job in a fresh process of the app. Its outputs are compared with this machine's, on the phone.

        With `energy`, a phone that is plugged in has to be unplugged when the log says so; over Wi-Fi nothing is to do.

        Raises:
            FileFormatError: the file is no model of the job's runtime, or the app's runtime refuses it.
            DeviceError: the app cannot do what the job asks.
            MeasurementError: the run failed, took too long, or the phone did not come back.
        """
        require(job.model, job.runtime)
        self._refuse_impossible(job, self.info())
        app, shell = self._app(), self._started()
        before = self._conditions()
        energy = self._energy(job) if job.energy else None
        if energy:
            before |= battery_capacity(shell.adb)
        with tempfile.TemporaryDirectory(prefix="phonefit-app-") as name:
            parcel = pack(job, Path(name), reference=REFERENCE_REPEATS, energy=energy)
            app.put(parcel.files)
        if energy and energy.wait_for_unplug_seconds:
            seconds = energy.idle_seconds + energy.seconds
            _log.warning(
                "pull the cable of %s within %g s; after %g s more put it in again, the result is waited for",
                shell.adb.serial, _UNPLUG_SECONDS, seconds,
            )  # fmt: skip
        result = app.run(parcel.job, job.timeout_seconds + _energy_seconds(energy))
        run = raw_run(result)
        if energy:
            run = _with_energy(run, result)
        heat = {"app_thermal_status": result.thermal_before}, {"app_thermal_status": result.thermal_after}
        return run.model_copy(
            update={"conditions_before": {**before, **heat[0]}, "conditions_after": {**self._conditions(), **heat[1]}}
        )

    def _app(self) -> PhoneApp:
        return PhoneApp(self._started(), self._wait)

    def _energy(self, job: Job) -> AppEnergy:
        battery = read_conditions(self._open()).battery
        plugged = battery is not None and bool(battery.plugged)
        seconds = job.duration_seconds or ENERGY_SECONDS
        return AppEnergy(
            idle_seconds=seconds, seconds=seconds, wait_for_unplug_seconds=_UNPLUG_SECONDS if plugged else 0.0
        )

    def _refuse_impossible(self, job: Job, info: DeviceInfo) -> None:
        super()._refuse_impossible(job, info)
        if job.cpu_mask is not None:
            raise DeviceError(f"CPU mask {job.cpu_mask:#x}: an app does not choose its cores; leave it out, or use adb")
        if job.output_file is not None:
            raise DeviceError("the app compares outputs on the phone and sends none; leave the output file out")


def _energy_seconds(energy: AppEnergy | None) -> float:
    if energy is None:
        return 0.0
    unplugged = _REPLUG_SECONDS if energy.wait_for_unplug_seconds else 0.0
    return energy.wait_for_unplug_seconds + energy.idle_seconds + energy.seconds + unplugged


def raw_run(result: AppResult) -> RawRun:
    """An app's figures as any device reports them; without energy."""
    versions = {f"{name} of the app": version for name, version in result.runtimes.items()}
    return RawRun(
        load_nanoseconds=result.load_ns or 0,
        warmup_nanoseconds=result.warmup_ns,
        sample_nanoseconds=result.sample_ns,
        baseline_bytes=result.memory.before_load_bytes if result.memory else 0,
        peak_bytes=result.memory.peak_bytes if result.memory else 0,
        memory_kind="proportional",
        versions={APPLICATION: result.app_version, **versions},
        reference_before_nanoseconds=result.reference_before_ns,
        reference_after_nanoseconds=result.reference_after_ns,
        timed_from_seconds=None if result.timed_from_ns is None else result.timed_from_ns / 1e9,
        timed_until_seconds=None if result.timed_until_ns is None else result.timed_until_ns / 1e9,
        wrong_outputs=difference(result.correctness),
    )


def difference(found: AppCorrectness | None) -> str:
    """How outputs differ from this machine's; "" when they do not, or nothing was compared."""
    if found is None or found.passed:
        return ""
    share = f"{found.max_difference:.2%} of their range, cosine {found.cosine:.5f}"
    return f"the outputs on the phone differ from this machine's by up to {share}"


def app_energy(result: AppResult, run: RawRun) -> dict[str, EnergyEstimate]:
    """Energy of an inference by the readings that the app took of the battery's gauge. Pure.

    Raises:
        EnergyUnavailableError: power was connected, there are too few readings, or they cannot be trusted.
    """
    plugged = sum(sample.plugged != 0 for sample in result.gauge)
    if plugged:
        raise EnergyUnavailableError(
            f"power was connected in {plugged} of {len(result.gauge)} readings of the battery's gauge; pull the cable "
            "when it is asked for, or use adb over Wi-Fi without a cable"
        )
    idle, during = (_readings(result.gauge, phase) for phase in ("idle", "run"))
    return gauge_energy(idle, during, run, "current and voltage by the app's BatteryManager")


def _readings(gauge: tuple[AppGaugeSample, ...], phase: Phase) -> tuple[GaugeSample, ...]:
    found = []
    for sample in gauge:
        volts = volts_of(sample.voltage_mv)
        if sample.phase == phase and sample.current_ua is not None and volts is not None:
            found.append(
                GaugeSample(
                    seconds=sample.elapsed_ms / 1e3, current_raw=sample.current_ua, microvolts=round(volts * 1e6)
                )
            )
    return tuple(found)


def _with_energy(run: RawRun, result: AppResult) -> RawRun:
    try:
        return run.model_copy(update={"energy": app_energy(result, run)})
    except EnergyUnavailableError as error:
        return run.model_copy(update={"energy_note": str(error)})
