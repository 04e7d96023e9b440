"""Steps of the check: each leaves a folder named by the digest of all that went into it, and is not done again."""

import inspect
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from android_demo.check.tools import CACHE, CheckError
from phonefit.models.record import digest_of, file_digest

BUILD = CACHE / "build"


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """Content of files, and of all files in folders: path -> sha256."""
    files: list[Path] = []
    for path in paths:
        files += [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return {str(file): file_digest(file) for file in sorted(files)}


def step(name: str, paths: Iterable[Path], settings: object, work: Callable[[Path], None]) -> Path:
    """Do one step, unless it was done for the same inputs.

    Args:
        name: what the step is, for people; its folder too.
        paths: files and folders that it reads.
        settings: what else its result depends on, as JSON.
        work: writes the result into the folder that it is given; raises CheckError when the step fails.

    Returns:
        The folder with the result.
    """
    begin = time.monotonic()
    prefix = name.replace(" ", "-")
    script = Path(inspect.getfile(work))  # a step that is done otherwise is done again
    folder = BUILD / f"{prefix}-{digest_of([digests([*paths, script]), settings])[:16]}"
    done = folder.is_dir()
    if not done:
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="step-", dir=BUILD) as place:
            new = Path(place) / folder.name
            new.mkdir()
            try:
                work(new)
            except CheckError as error:
                raise CheckError(f"{name}: {error}") from error
            for old in BUILD.glob(f"{prefix}-" + "?" * 16):
                shutil.rmtree(old)
            new.rename(folder)
    say(f"{name:<34} {'unchanged' if done else f'{time.monotonic() - begin:.1f} s'}")
    return folder


def say(text: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
