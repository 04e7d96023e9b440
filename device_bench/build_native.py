"""Build the native runners and the counting tier: `python -m phonefit.device_bench.build_native [ARCHITECTURE]...`.

The runtimes come from the Python packages that phonefit depends on: for this machine the installed ones, for another
architecture the same versions, fetched by pip. Building again does nothing while sources, versions and results are
unchanged. Debian packages that provide the tools are named when one is missing; `--missing` prints just their names.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator.counting import (
    EMPTY_FOLDERS,
    GUEST,
    SYSTEM_LIBRARIES,
    CountsFolder,
    counts_digest,
    counts_folder,
)
from phonefit.device_bench.emulator.latency_model import Core, cores
from phonefit.device_bench.emulator.locks import locked
from phonefit.device_bench.native_runner import (
    SOURCES,
    STAMP,
    Built,
    RunnerFolder,
    default_root,
    host_architecture,
    inputs_digest,
    package_versions,
)
from phonefit.models.errors import PhonefitError
from phonefit.models.record import file_digest, write_atomically

# Tool -> Debian package.
_HOST_TOOLS = {"cmake": "cmake", "ninja": "ninja-build", "g++": "g++", "apt-get": "apt", "dpkg-deb": "dpkg"}
_GUEST_TOOLS = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu"}
_COUNTS_TOOLS = {"gcc": "gcc", "qemu-aarch64": "qemu-user"}

# Wheels of the pinned versions exist for these.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17")
_WANTED = re.compile(
    r"executorch/(include/.*|lib/libexecutorch[^/]*\.so|lib/cmake/.*)|ai_edge_litert/libLiteRt\.so"
    r"|onnxruntime/capi/libonnxruntime\.so\..*"
)
# ONNX Runtime's C header, which its wheel lacks; the library still offers the interface of this older one.
_HEADER_PACKAGE, _HEADER_SUITE = "libonnxruntime-dev", "trixie"
_HEADER = "usr/include/onnxruntime/onnxruntime_c_api.h"
# What an aarch64 program needs of a system, taken from the cross compiler.
_SYSROOT = Path("/usr/aarch64-linux-gnu/lib")
_LAST_CHARACTERS = 3000


def missing_packages(architectures: Sequence[str]) -> list[str]:
    """Debian packages that building for these architectures needs and this machine lacks."""
    tools = dict(_HOST_TOOLS)
    if GUEST in architectures:
        tools |= _COUNTS_TOOLS
    if any(architecture != host_architecture() for architecture in architectures):
        tools |= _GUEST_TOOLS
    return sorted({package for tool, package in tools.items() if shutil.which(tool) is None})


def build(architectures: Sequence[str], root: Path | None = None) -> list[str]:
    """Build the runners for each architecture, and the counting tier with those for aarch64.

    Returns:
        One line for each folder: what was done.

    Raises:
        DeviceError: a tool is missing, the architecture is not one that can be built here, or a step failed.
    """
    place = (root or default_root()).resolve()
    host = host_architecture()
    for architecture in architectures:
        if architecture not in (host, GUEST):
            raise DeviceError(f"runners for {architecture!r} cannot be built here; known: {', '.join({host, GUEST})}")
    if missing := missing_packages(architectures):
        raise DeviceError(f"tools are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    with locked(place / "build.lock", "another process is building the native runners"):
        done = [_timed(architecture, partial(_build_runners, architecture, place)) for architecture in architectures]
        if GUEST in architectures:
            done.append(_timed("counts", partial(_build_counts, place)))
    return done


def _timed(what: str, work: Callable[[], bool]) -> str:
    begin = time.monotonic()
    return f"{what}: built ({time.monotonic() - begin:.1f} s)" if work() else f"{what}: up to date"


def _build_runners(architecture: str, place: Path) -> bool:
    """Returns whether there was anything to do."""
    inputs, folder = inputs_digest(), RunnerFolder(place / architecture)
    stamp = folder.path / STAMP
    if stamp.is_file() and Built.load(stamp).inputs == inputs and folder.is_unchanged():
        return False
    packages = package_versions()
    if absent := [name for name, number in packages.items() if number == "missing"]:
        raise DeviceError(f"Python packages are missing: {', '.join(absent)}; run `make setup`")
    cross = architecture != host_architecture()
    sdk = _fetch_sdk(place / f"sdk-{architecture}", architecture, packages) if cross else _installed_sdk()
    header = _fetch_header(place / "onnxruntime-header")
    build_folder = place / f"build-{architecture}"
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "EXECUTORCH_ROOT": sdk / "executorch",
        "LITERT_ROOT": sdk / "ai_edge_litert",
        "ONNXRUNTIME_ROOT": sdk / "onnxruntime",
        "ONNXRUNTIME_INCLUDE": header,
        "EXECUTORCH_VERSION": packages["executorch"],
        "LITERT_VERSION": packages["ai-edge-litert"],
    }
    if cross:
        settings |= {
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": architecture,
            "CMAKE_C_COMPILER": f"{architecture}-linux-gnu-gcc",
            "CMAKE_CXX_COMPILER": f"{architecture}-linux-gnu-g++",
        }
    defined = [f"-D{name}={value}" for name, value in settings.items()]
    _run(["cmake", "-G", "Ninja", "-S", str(SOURCES), "-B", str(build_folder), *defined])
    _run(["cmake", "--build", str(build_folder)])
    with tempfile.TemporaryDirectory(prefix=f"{architecture}-", dir=place) as name:
        new = Path(name) / architecture
        _run(["cmake", "--install", str(build_folder), "--strip", "--prefix", str(new)])
        _seal(new, inputs)
        _replace(folder.path, new)
    return True


def _seal(folder: Path, inputs: str) -> None:
    files = {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    Built(inputs=inputs, files=files).save(folder / STAMP)


def _replace(old: Path, new: Path) -> None:
    """Put a finished folder in the old one's place, with no more than a moment between the two."""
    if old.exists():
        retired = new.with_name(f"{new.name}-old")
        old.rename(retired)
        new.rename(old)
        shutil.rmtree(retired)
    else:
        new.rename(old)


def _installed_sdk() -> Path:
    """The folder that the packages are installed in, found without importing one."""
    found = importlib.util.find_spec("executorch")
    places = [Path(place).parent for place in found.submodule_search_locations or ()] if found else []
    for place in places:
        if (place / "executorch/include").is_dir():
            return place
    raise DeviceError("the installed executorch package has no C++ headers; install the pinned version: make setup")


def _fetch_sdk(folder: Path, architecture: str, packages: dict[str, str]) -> Path:
    """The parts of the packages' wheels for another architecture that a C++ program needs."""
    marker = folder / "versions"
    wanted = " ".join(f"{name}=={number}" for name, number in packages.items())
    if marker.is_file() and marker.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    platforms = [part for name in _PLATFORMS for part in ("--platform", f"{name}_{architecture}")]
    number = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=folder.parent) as wheels:
        _run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--only-binary=:all:", "--python-version", number, *platforms, "--dest", wheels, *wanted.split()),
            ]
        )
        for wheel in sorted(Path(wheels).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if _WANTED.fullmatch(name)])
    write_atomically(marker, wanted.encode())
    return folder


def _fetch_header(folder: Path) -> Path:
    """The folder with ONNX Runtime's C header, out of a Debian package. This machine's APT state is not touched."""
    from phonefit.device_bench.emulator.packages import download

    if (folder / "onnxruntime_c_api.h").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder.parent) as name:
        place = Path(name)
        (package,) = download(_HEADER_SUITE, [_HEADER_PACKAGE], place)
        _run(["dpkg-deb", "--extract", str(package), str(place / "content")])
        write_atomically(folder / "onnxruntime_c_api.h", (place / "content" / _HEADER).read_bytes())
    return folder


def _build_counts(place: Path) -> bool:
    """Returns whether there was anything to do."""
    folder = counts_folder(place)
    if folder.is_current() and RunnerFolder(folder.path).is_unchanged():
        return False
    with tempfile.TemporaryDirectory(prefix="counts-", dir=place) as name:
        new = CountsFolder(Path(name) / folder.path.name)
        new.path.mkdir()
        for library in (new.plugin, new.clock):
            source = str(SOURCES / f"{library.stem}.c")
            _run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), source])
        for name, core in cores().items():
            _make_root(new.root(name), core)
        _seal(new.path, counts_digest())
        _replace(folder.path, new.path)
    return True


def _make_root(root: Path, core: Core) -> None:
    libraries = root / "lib" / "aarch64-linux-gnu"
    libraries.mkdir(parents=True)
    system = Path("/lib") if host_architecture() == GUEST else _SYSROOT
    for library in SYSTEM_LIBRARIES:
        found = next(
            (path for path in (system / library, system / "aarch64-linux-gnu" / library) if path.exists()), None
        )
        if found is None:
            raise DeviceError(f"{library} for {GUEST} is not in {system}; reinstall g++-aarch64-linux-gnu")
        # the loader under the name that programs are linked with, the others where it looks first
        shutil.copy(found, (root / "lib" if library.startswith("ld-") else libraries) / library)
    for path in EMPTY_FOLDERS:
        (root / path).mkdir(parents=True)
    for path, text in core.guest_files().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _run(line: list[str], folder: Path | None = None) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-_LAST_CHARACTERS:]
        raise DeviceError(f"{Path(line[0]).name} failed (exit status {done.returncode}): {' '.join(line)}\n{said}")


def main(arguments: list[str]) -> int:
    """Build, or say what is missing; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m phonefit.device_bench.build_native")
    parser.add_argument(
        "architecture", nargs="*", default=[host_architecture()], help="x86_64, aarch64; default: this one"
    )
    parser.add_argument("--missing", action="store_true", help="only print the Debian packages that are missing")
    chosen = parser.parse_args(arguments)
    if chosen.missing:
        sys.stdout.write("".join(f"{name}\n" for name in missing_packages(chosen.architecture)))
        return 0
    try:
        for line in build(chosen.architecture):
            sys.stdout.write(f"{line}\n")
    except PhonefitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
