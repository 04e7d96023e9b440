"""Debian packages for arm64, fetched by apt-get with a configuration of its own.

The machine's own APT state stays untouched: lists, cache, package status and sources are private. Only the archive's
address, its keyring and settings such as a proxy are the machine's. APT checks signatures and checksums as always.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from phonefit.device_bench.device import DeviceError
from phonefit.models.record import Record, file_digest

# adbd for Linux exists in this release.
SUITE = "trixie"
# With what they need: adbd and its libraries, libc; and what the native runners are linked with.
PACKAGES = ("adbd", "busybox-static", "libstdc++6", "libgcc-s1", "libgomp1")
# Made for virtual machines: virtio over PCI and ext4 are built in, and it is a third of the general kernel's size.
KERNEL = "linux-image-cloud-arm64"
MIRROR_VARIABLE = "PHONEFIT_DEBIAN_MIRROR"
_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIST = "packages.json"


class PackageList(Record):
    """The packages of a folder: file name -> sha256."""

    schema_number: int = 1
    suite: str
    packages: tuple[str, ...]
    files: dict[str, str]


def fetch(folder: Path) -> PackageList:
    """Fetch the packages into `folder`, unless they are already there and unchanged.

    Raises:
        DeviceError: this machine has no APT, or no Debian archive among its sources, or the fetch failed.
    """
    listing = folder / _LIST
    if listing.is_file():
        known = PackageList.load(listing)
        if (known.suite, known.packages) == (SUITE, (KERNEL, *PACKAGES)) and _unchanged(folder, known):
            return known
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="packages-", dir=folder.parent) as name:
        archives = _download(Path(name))
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        files = {}
        for package in sorted(archives.glob("*.deb")):
            files[package.name] = file_digest(package)
            package.rename(folder / package.name)
    fetched = PackageList(suite=SUITE, packages=(KERNEL, *PACKAGES), files=files)
    fetched.save(listing)
    return fetched


def download(suite: str, names: Sequence[str], place: Path) -> list[Path]:
    """Download single packages for this machine's architecture, without what they need, into the empty folder `place`.

    Args:
        names: of packages, or NAME=VERSION.

    Raises:
        DeviceError: this machine has no APT, or no Debian archive among its sources, or the download failed.
    """
    for path in ("state/lists/partial", "cache/archives/partial"):
        (place / path).mkdir(parents=True)
    (place / "status").touch()
    mirror, keyring = archive_of_this_machine()
    signed = f" [signed-by={keyring}]" if keyring else ""
    (place / "debian.list").write_text(f"deb{signed} {mirror} {suite} main\n")
    (place / "apt.conf").write_text(
        f"""
Dir::State "{place}/state";
Dir::State::status "{place}/status";
Dir::Cache "{place}/cache";
Dir::Etc::sourcelist "{place}/debian.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""
    )
    _apt(place, "apt-get", "update")
    _apt(place, "apt-get", "download", *names)
    return sorted(place.glob("*.deb"))


def _unchanged(folder: Path, known: PackageList) -> bool:
    return all((folder / name).is_file() and file_digest(folder / name) == sha for name, sha in known.files.items())


def _download(place: Path) -> Path:
    """Download all packages; returns the folder that holds the .deb files."""
    archives = place / "cache/archives"
    for path in (archives / "partial", place / "state/lists/partial"):
        path.mkdir(parents=True)
    (place / "status").touch()
    mirror, keyring = archive_of_this_machine()
    signed = f"Signed-By: {keyring}\n" if keyring else ""
    source = f"Types: deb\nURIs: {mirror}\nSuites: {SUITE}\nComponents: main\n{signed}"
    (place / "debian.sources").write_text(source)
    (place / "apt.conf").write_text(_configuration(place))
    _apt(place, "apt-get", "update")
    _apt(place, "apt-get", "install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES)
    # alone, without the tools that would install it
    described = _apt(place, "apt-cache", "show", "--no-all-versions", KERNEL)
    kernel = re.search(r"^Depends: (linux-image-\S+)", described, re.MULTILINE)
    if kernel is None:
        raise DeviceError(f"the Debian package {KERNEL} of {SUITE} names no kernel: {described.strip()[:500]}")
    _apt(place, "apt-get", "download", kernel[1], folder=archives)
    return archives


def _configuration(place: Path) -> str:
    return f"""
Dir::State "{place}/state";
Dir::State::status "{place}/status";
Dir::Cache "{place}/cache";
Dir::Etc::sourcelist "{place}/debian.sources";
Dir::Etc::sourceparts "-";
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def _apt(place: Path, program: str, *arguments: str, folder: Path | None = None) -> str:
    command = [program, "-c", str(place / "apt.conf"), "-q", *arguments]
    done = _run(command, folder or place)
    if done.returncode != 0:
        raise DeviceError(
            f"{program} {' '.join(arguments)} failed: {(done.stderr.strip() or done.stdout.strip())[-1500:]}; "
            "check the network and this machine's APT sources"
        )
    return done.stdout


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DeviceError(f"{command[0]} is missing: the emulator's image is built from Debian packages") from None


def archive_of_this_machine() -> tuple[str, str]:
    """Address of the Debian archive that this machine uses, and the path of its keyring ("" for APT's own).

    The environment variable PHONEFIT_DEBIAN_MIRROR takes the place of the address.

    Raises:
        DeviceError: no Debian archive is known.
    """
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return mirror, str(_DEBIAN_KEYRING) if _DEBIAN_KEYRING.is_file() else ""
    done = _run(["apt-get", "indextargets", "Created-By: Packages"], Path("/"))
    for block in done.stdout.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        suite = fields.get("Release", "")
        if fields.get("Origin") == "Debian" and fields.get("Component") == "main" and "-" not in suite:
            entry = Path(fields.get("Sourcesentry", "").rpartition(":")[0])
            return fields["Repo-URI"], keyring_of(entry.read_text()) if entry.is_file() else ""
    raise DeviceError(
        "this machine's APT sources name no Debian archive (or `apt-get update` was never run); "
        f"set {MIRROR_VARIABLE} to the address of one and install the package debian-archive-keyring"
    )


def keyring_of(sources: str) -> str:
    """Path of the first keyring that an APT sources file names, in either of its formats; "" if it names none."""
    found = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", sources, re.IGNORECASE)
    return found[1] if found else ""
