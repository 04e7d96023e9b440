"""Image folder: FOLDER/CLASS/picture, at any depth below the class; where the task needs no classes, at any depth.

Hidden files and folders are left out.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import (
    Candidate,
    DigestCache,
    OnProgress,
    SourceConfig,
    file_stamp,
    required_path,
)
from phonefit.models.errors import DataError

LITTER = frozenset({"thumbs.db", "desktop.ini"})  # what desktops leave in folders of pictures


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load `config.path`; the labels are the names of its folders, sorted. A sample's name is its path from there.

    Where the pictures themselves are the targets, folders mean nothing and there is one label, "picture".

    Every other file counts as a picture, so that one with a wrong name or content is reported, not left out.

    Raises:
        DataError: no such folder, no class folders, one class, or a class without a readable picture.
    """
    folder = required_path(config, "image_folder")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; data.path must be a folder with one folder for each class")
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:
        raise DataError(f"{folder}: no permission to list this folder; change its permissions") from None
    labels = [path.name for path in inside if path.is_dir()]
    if config.kind == "picture":
        labels, folders = ["picture"], [folder]
    else:
        folders = [folder / label for label in labels]
    if not labels:
        raise DataError(
            f"{folder}: no class folders ({len(inside)} files found); put the pictures into one folder for each class, "
            f"such as {folder / 'cat' / '001.jpg'}"
        )
    candidates = (
        Candidate(path.relative_to(folder).as_posix(), index, file_stamp(path))
        for index, place in enumerate(folders)
        for path in _files(place)
    )

    def read(name: str) -> Image.Image:
        return open_picture(folder / name)

    return collect(f"image folder {folder}", labels, candidates, read, config.limit, progress, cache, config.kind)


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be listed ({error.strerror}); change its permissions")

    visited: set[Path] = set()  # links to folders are followed, in a circle once
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        resolved = Path(parent).resolve()
        if resolved in visited:
            folders.clear()
            continue
        visited.add(resolved)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in files if not name.startswith(".") and name.lower() not in LITTER)
