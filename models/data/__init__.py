"""Data sources, one file each. `SOURCES` lists them."""

from phonefit.models.data import coco, csv_file, demo, drawn_faces, drawn_signs, idx, image_folder
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.source import DigestCache, Load, NoCache, OnProgress, SourceConfig
from phonefit.models.errors import DataError, UnknownNameError
from phonefit.models.targets import TargetKind

SOURCES: dict[str, Load] = {
    "image_folder": image_folder.load,
    "csv": csv_file.load,
    "idx": idx.load,
    "demo": demo.load,
    "drawn_faces": drawn_faces.load,
    "coco": coco.load,
    "drawn_signs": drawn_signs.load,
}
TARGETS: dict[str, tuple[TargetKind, ...]] = {
    "image_folder": ("class", "picture"),
    "csv": ("class", "number", "labels"),
    "idx": ("class",),
    "demo": ("class", "number", "labels", "picture"),
    "drawn_faces": ("class",),
    "coco": ("boxes",),
    "drawn_signs": ("boxes",),
}
"""What each source can give for a picture."""


def load_data(
    source: str,
    config: SourceConfig,
    progress: OnProgress = lambda done, total: None,
    cache: DigestCache | None = None,
) -> DataSet:
    """The labelled pictures of a source.

    Raises:
        UnknownNameError: no source of that name, with the names that exist.
        DataError: there is nothing to learn from, with what was found and what to do.
    """
    if source not in SOURCES:
        raise UnknownNameError("data source", source, SOURCES)
    if problem := target_problem(source, config.kind):
        raise DataError(problem)
    return SOURCES[source](config, progress, cache or NoCache())


def target_problem(source: str, kind: TargetKind) -> str | None:
    """Why a source cannot give what a task learns; None when it can."""
    if kind in TARGETS[source]:
        return None
    able = ", ".join(name for name, kinds in TARGETS.items() if kind in kinds)
    wanted = {
        "class": "a class",
        "number": "a number",
        "labels": "any number of labels",
        "boxes": "boxes with labels",
        "picture": "nothing but the picture itself",
    }[kind]
    return f"the task needs {wanted} for each picture, which source {source} does not give; sources that do: {able}"
