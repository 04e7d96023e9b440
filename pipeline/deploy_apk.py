"""The app's APK: where it is from, and what is in it."""

import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from phonefit.device_bench.app_job import RUNTIMES_ASSET, AppRuntimes
from phonefit.device_bench.device import DeviceError
from phonefit.models.errors import FileFormatError

PROJECT = "android_demo"
BUILT = Path("app/build/outputs/apk/debug/app-debug.apk")
_LAST_CHARACTERS = 2000


@dataclass(frozen=True)
class Apk:
    """An APK of the app.

    Attributes:
        abis: for which it holds libraries; empty: it holds none, and runs anywhere.
    """

    path: Path
    runtimes: AppRuntimes
    abis: tuple[str, ...]


def find_apk(given: Path | None, project: Path | None = None) -> Apk:
    """The APK to install: the given one; else that of android_demo/, built anew where Gradle is there.

    Args:
        project: folder of the app's sources; None: android_demo/ in this folder or beside phonefit's own sources.

    Raises:
        FileFormatError: it is no APK of this app.
        DeviceError: there is none, or Gradle failed.
    """
    if given is not None:
        return read_apk(given)
    places = [Path.cwd() / PROJECT, Path(__file__).resolve().parents[1] / PROJECT]
    found = project or next((place for place in places if place.is_dir()), None)
    command = gradle(found) if found else None
    if found and command:
        _build(command, found)
    if found and (found / BUILT).is_file():
        return read_apk(found / BUILT)
    here = f"{found} has no {BUILT}" if found else f"there is no {PROJECT}/ here"
    raise DeviceError(
        f"no APK of the app: {here}, and no Gradle or no Java to build it with. Do one of these, then deploy again:\n"
        f"  · give an APK that was built elsewhere: --apk FILE\n"
        f"  · open {PROJECT}/ in Android Studio and choose Build > Build APK(s)\n"
        f"  · install Java and the Android SDK; phonefit deploy then builds it by itself"
    )


def gradle(project: Path) -> str | None:
    """What builds the project here: its own wrapper where there is Java, else a Gradle on PATH; None: nothing."""
    wrapper = project / "gradlew"
    java = "JAVA_HOME" in os.environ or shutil.which("java")
    if java and wrapper.is_file() and (project / "gradle/wrapper/gradle-wrapper.jar").is_file():
        return str(wrapper)
    return shutil.which("gradle")


def read_apk(path: Path) -> Apk:
    """What an APK says of itself.

    Raises:
        FileFormatError: it is none, or not of this app, or of another version of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            content = archive.read(RUNTIMES_ASSET)
        runtimes = AppRuntimes.model_validate_json(content)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file; expected an APK there") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise FileFormatError(f"{path}: not an APK ({error}); build it again") from None
    except KeyError:
        raise FileFormatError(f"{path}: not an APK of {PROJECT}/: it has no {RUNTIMES_ASSET}") from None
    except ValidationError as error:
        raise FileFormatError(f"{path}: {RUNTIMES_ASSET}: {error.errors()[0]['msg']}; build it again") from None
    folders = {name.split("/")[1] for name in names if name.startswith("lib/") and name.endswith(".so")}
    return Apk(path=path, runtimes=runtimes, abis=tuple(sorted(folders)))


def _build(command: str, project: Path) -> None:
    line = [command, "--quiet", "assembleDebug"]
    done = subprocess.run(line, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_LAST_CHARACTERS:]
        raise DeviceError(
            f"{project}: `{' '.join(line)}` failed (exit status {done.returncode}); open the project in Android Studio "
            f"to see more, or give an APK: --apk FILE; its last words:\n{said}"
        )
