"""Stage results on their way from the machine that computed them to the one that searches."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from phonefit.pipeline.folders import held
from phonefit.pipeline.result import StageUse
from phonefit.pipeline.store import STAGE_FILE, explain_disk_errors

Packed = Mapping[tuple[str, str], Mapping[str, bytes]]
"""(stage, key) -> path inside the result -> content."""


def known_keys(runs: Path) -> frozenset[str]:
    """Keys of the stage results in the store."""
    return frozenset(path.parent.name for path in (runs / "store").glob(f"*/*/{STAGE_FILE}"))


def pack(runs: Path, stages: Iterable[StageUse], known: frozenset[str]) -> Packed:
    """The results of these stages, without those that are known where they are sent to."""
    wanted = {(use.stage, use.key) for use in stages if use.key not in known}
    folders = {(stage, key): runs / "store" / stage / key for stage, key in sorted(wanted)}
    return {
        name: {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }


def unpack(runs: Path, packed: Packed) -> None:
    """Put results into the store, each as a whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    store = runs / "store"
    with explain_disk_errors(runs):
        for (stage, key), files in packed.items():
            final, temporary = store / stage / key, store / "tmp" / key
            with held(store / "locks" / key):
                if (final / STAGE_FILE).is_file():
                    continue
                shutil.rmtree(temporary, ignore_errors=True)
                for name, content in files.items():
                    path = temporary / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                final.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(final, ignore_errors=True)  # an incomplete leftover, if any
                temporary.rename(final)
