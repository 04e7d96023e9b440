"""Finds the two versions that `why` compares: two files, or an artifact as it was blessed and as it is."""

from pathlib import Path

from phonefit.models.errors import FileFormatError
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import UnknownNameError
from phonefit.pipeline.size.baseline import Entry, load_baseline, load_lock, lock_path
from phonefit.pipeline.size.measured import kept_copy, measured_anatomy
from phonefit.pipeline.size.parts import Anatomy
from phonefit.pipeline.size.sources import read_subjects, sources_of
from phonefit.pipeline.size.why import Explanation, why
from phonefit.pipeline.store import Store


def explain_files(old: Path, new: Path, runs: Path, progress: Progress) -> Explanation:
    """Why one file is larger than another.

    Raises:
        BrokenFileError: one of them is missing or damaged.
    """
    store = Store(runs)
    return why(measured_anatomy(old, store, progress), measured_anatomy(new, store, progress))


def explain_artifact(name: str, baseline: Path, runs: Path, progress: Progress) -> Explanation:
    """Why an artifact is larger than when it was blessed.

    Raises:
        UnknownNameError: the baseline has no artifact of that name.
        FileFormatError: the blessed version is neither in the store nor in the lock; or its subject no longer gives it.
        BrokenFileError: the present file is damaged.
    """
    artifacts, store = load_baseline(baseline).artifacts, Store(runs)
    if name not in artifacts:
        raise UnknownNameError(f"artifact of {baseline}", name, artifacts)
    entry = artifacts[name]
    old = _blessed(name, entry, baseline, store, progress)
    for subject in read_subjects([entry.subject]):
        for source in sources_of(subject, runs, progress):
            if source.name == name:
                return why(old, measured_anatomy(source.path, store, progress))
    raise FileFormatError(
        f"{name}: {entry.subject} no longer gives it; `phonefit size bless` takes it out of {baseline}"
    )


def _blessed(name: str, entry: Entry, baseline: Path, store: Store, progress: Progress) -> Anatomy:
    """From the copy in the store, or else from the lock beside the baseline."""
    copy = kept_copy(entry.sha256, Path(name).suffix, store)
    if copy is not None:
        return measured_anatomy(copy, store, progress)
    found = load_lock(baseline).artifacts.get(name)
    if found is None or found.sha256 != entry.sha256:
        raise FileFormatError(
            f"{name}: its blessed version is neither in {store.root} nor in {lock_path(baseline)}; commit that file "
            f"with {baseline.name}, or compare two files: phonefit size why OLD NEW"
        )
    return found
