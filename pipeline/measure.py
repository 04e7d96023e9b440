"""Measuring a converted file on one of the recipe's devices, as a stage of the run."""

from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import Device, DeviceInfo
from phonefit.device_bench.report import Report
from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import Artifact
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe import BenchConfig
from phonefit.pipeline.store import StageResult

CODE_VERSION = 3
REPORT_FILE = "report.json"


def measure(
    artifact: Artifact,
    model: Path,
    device: Device,
    config: BenchConfig,
    context: Context,
    memory_limit_bytes: int | None = None,
) -> tuple[StageResult, Report]:
    """The report of one file on one device. The same file on the same device is measured once, unless `reuse` is off.

    Args:
        config: with the name of this device; see `BenchConfig.on`.
        memory_limit_bytes: enforced by devices that can; the others measure without.

    Raises:
        DeviceError: the device is missing or refuses.
        MeasurementError: the measurement failed.
    """

    limit = memory_limit_bytes if device.limits_memory else None

    def build(destination: Path) -> None:
        with context.progress.stage(f"measure {artifact.runtime} {artifact.precision} on {config.device}"):
            try:
                device.prepare()
                report = bench(
                    model,
                    device=device,
                    runtime=artifact.runtime,
                    threads=config.threads,
                    warmups=config.warmups,
                    repeats=config.repeats,
                    attempts=config.attempts,
                    memory_limit_bytes=limit,
                    energy=config.energy,
                )
            finally:
                # Who holds a device waits for nothing, neither a second device nor a result that another process
                # computes: its holder could be waiting for the first.
                device.cleanup()
        report.save(destination / REPORT_FILE)

    result = context.store.compute(
        "measure",
        inputs={"artifact": artifact.sha256},
        config={**identity(device.info(), config), "memory_limit_bytes": limit},
        code_version=CODE_VERSION,
        build=build,
        tools=runtime_module(artifact.runtime).versions(),
        renew=not config.reuse,
    )
    return result, Report.load(result.path / REPORT_FILE)


def identity(device: DeviceInfo, config: BenchConfig) -> dict[str, JsonValue]:
    """What makes two measurements of one file the same: the device itself, not only its name, and the settings."""
    return {"device_info": device.as_json(), **config.model_dump(mode="json", exclude={"reuse"})}
