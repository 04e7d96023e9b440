"""What must hold before anything is put on a phone, and which phone. Pure, but for asking adb what is attached."""

from collections.abc import Sequence

from phonefit.device_bench.adb_errors import state_remedy
from phonefit.device_bench.adb_server import Attached
from phonefit.device_bench.device import DeviceError
from phonefit.models.artifact import Artifact
from phonefit.models.record import Frozen
from phonefit.pipeline.deploy_apk import Apk

MINIMUM_SDK = 26
# The phone unpacks and compiles an app while it installs it, beside the copy that it was sent.
_COPIES_OF_APK = 3
_SPARE_BYTES = 50_000_000

_FIRST_STEPS = """\
  1. On the phone: Settings > About phone, tap `Build number` seven times. That opens the developer options.
  2. Settings > System > Developer options: switch on `USB debugging`.
  3. Plug it into this computer with a cable that carries data, and unlock it.
  4. Accept this computer on its screen (`Allow USB debugging`, always from this computer).
  5. `phonefit devices` must list it. Then run the same command again.
Without a cable (Android 11 and later): Developer options > Wireless debugging, then `adb pair` and `adb connect`."""


class Phone(Frozen):
    """What a phone says of itself that decides whether the app and the models can be there.

    Attributes:
        abis: that it runs, best first.
        free_bytes: on the file system that models are pushed to; None where it does not tell.
    """

    abis: tuple[str, ...]
    sdk: int
    free_bytes: int | None


def choose_phone(attached: Sequence[Attached], asked: str | None) -> str:
    """The serial to deploy to. Accepts "adb:SERIAL" and "app:SERIAL", too.

    Raises:
        DeviceError: none, several or an unusable one; the message says in a few lines what to do.
    """
    serial = asked.removeprefix("adb:").removeprefix("app:") if asked else None
    if not attached:
        raise DeviceError(f"no phone is attached. To attach one:\n{_FIRST_STEPS}")
    listing = "\n".join(f"  {item.serial}  {item.state}  {item.tags.get('model', '')}".rstrip() for item in attached)
    match = [item for item in attached if serial in (None, item.serial)]
    if not match:
        raise DeviceError(
            f"no phone with serial {serial} is attached; these are:\n{listing}\nName one: --device SERIAL"
        )
    if len(match) > 1:
        raise DeviceError(
            f"{len(match)} phones are attached:\n{listing}\n"
            f"Say which: --device {match[0].serial} (make deploy-android … DEVICE={match[0].serial})"
        )
    if match[0].state != "device":
        state = match[0].state
        steps = "\n".join(
            f"  · {step}" for step in (*state_remedy(state).split("; "), "then run the same command again")
        )
        raise DeviceError(f"{match[0].serial} is {state}:\n{steps}")
    return match[0].serial


def objections(phone: Phone, apk: Apk, artifacts: Sequence[Artifact], bytes_to_copy: int, install: bool) -> list[str]:
    """All that speaks against deploying, each with what to do; empty when nothing does.

    Args:
        bytes_to_copy: of models that are not on the phone yet.
        install: whether the APK is to be installed, too.
    """
    found = []
    if phone.sdk < MINIMUM_SDK:
        found.append(f"its API level is {phone.sdk}, the app needs {MINIMUM_SDK} (Android 8); use another phone")
    if apk.abis and not set(apk.abis) & set(phone.abis):
        have, want = ", ".join(apk.abis), ", ".join(phone.abis) or "no ABI that it tells"
        found.append(f"it runs {want}, the APK holds {have}: build the app for {(phone.abis or ('its ABI',))[0]}")
    needed = bytes_to_copy + _SPARE_BYTES + (_COPIES_OF_APK * apk.path.stat().st_size if install else 0)
    if phone.free_bytes is not None and phone.free_bytes < needed:
        found.append(
            f"{needed / 1e6:,.0f} MB are needed and {phone.free_bytes / 1e6:,.0f} MB are free: "
            f"free {(needed - phone.free_bytes) / 1e6:,.0f} MB on the phone"
        )
    return found + [problem for artifact in artifacts if (problem := version_problem(artifact, apk))]


def version_problem(artifact: Artifact, apk: Apk) -> str:
    """Why the app's runtime cannot run a file, as far as versions tell; "" when nothing speaks against it.

    A .pte names no oldest runtime that runs it, and ExecuTorch promises only that newer ones do; the other runtimes
    check operators themselves when they load a file, which the inference on the phone shows.
    """
    built = apk.runtimes.runtimes.get(artifact.runtime)
    if built is None:
        have = ", ".join(apk.runtimes.runtimes) or "no runtime"
        return f"{artifact.file} is for {artifact.runtime}, the app has {have}: build the app with {artifact.runtime}"
    made = artifact.tools.get("executorch") if artifact.runtime == "executorch" else None
    if made and _numbers(built) < _numbers(made):
        return (
            f"{artifact.file} was made with ExecuTorch {made}, the app has {built}, which may not know its format: "
            f"build the app with {made} or later"
        )
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor number."""
    parts = version.split("+")[0].split("-")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
