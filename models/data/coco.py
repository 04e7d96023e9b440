"""COCO: a folder of pictures, and boxes in a JSON file as of https://cocodataset.org/#format-data (detection).

Of the file `images` (id, file_name, width and height), `categories` (id, name) and `annotations` (image_id,
category_id, bbox as left, top, width, height, iscrowd) count. Crowds are left out: they are no box around one thing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, SourceConfig, file_stamp, required_path
from phonefit.models.errors import DataError
from phonefit.models.targets import Box

SLACK = 1.0
"""Pixels by which a box may reach beyond its picture, as rounding and other tools' edges make it; it is cut off."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Picture(_Part):
    id: int
    file_name: str = Field(min_length=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class _Category(_Part):
    id: int
    name: str = Field(min_length=1)


class _Annotation(_Part):
    id: int | None = None
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Annotations(_Part):
    images: tuple[_Picture, ...]
    categories: tuple[_Category, ...]
    annotations: tuple[_Annotation, ...]


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load the pictures of `config.path` that `config.labels_path` lists; a sample's name is its `file_name`.

    Labels are the categories that have a box, in the order of their ids. A picture without boxes shows nothing of them,
    and counts. One that does not exist counts as unreadable.

    Raises:
        DataError: no such folder or file, not of this format, a box of an unknown picture or category, without a size,
            or outside its picture.
    """
    folder, table = required_path(config, "coco"), config.labels_path
    if table is None:
        raise DataError("data source coco needs the JSON file of its boxes; set data.labels_path")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; data.path must be the folder that `file_name` in {table} starts from")
    read = _read(table)
    names = _unique(table, "image", {item.id: item.file_name for item in read.images}, len(read.images))
    if len(set(names.values())) < len(names):
        raise DataError(f"{table}: two images have one file_name; give each picture one entry")
    labels, boxes = _boxes(table, read)
    candidates = (Candidate(name, tuple(boxes[picture]), file_stamp(folder / name)) for picture, name in names.items())

    sizes = {item.file_name: (item.width, item.height) for item in read.images}

    def opened(name: str) -> Image.Image:
        image = open_picture(folder / name)
        if image.size != sizes[name]:  # boxes of another size, or of a picture that is not turned upright
            said = "x".join(map(str, sizes[name]))
            raise DataError(f"{image.width}x{image.height} pixels when it is upright; {table.name} says {said}")
        return image

    return collect(f"COCO file {table}", labels, candidates, opened, config.limit, progress, cache, "boxes")


def _read(table: Path) -> _Annotations:
    try:
        return _Annotations.model_validate(json.loads(table.read_bytes()))
    except OSError as error:
        raise DataError(f"{table}: {error.strerror}; data.labels_path must be a JSON file in COCO's format") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{table}: {place}: {first['msg']}; it must be in COCO's format for detection") from None
    except ValueError as error:
        raise DataError(f"{table}: not a JSON file ({error}); data.labels_path must be one in COCO's format") from None


def _boxes(table: Path, read: _Annotations) -> tuple[Sequence[str], Mapping[int, list[Box]]]:
    """Labels, and the boxes of each picture by its id."""
    pictures = {item.id: item for item in read.images}
    categories = _unique(table, "category", {item.id: item.name for item in read.categories}, len(read.categories))
    used = sorted({item.category_id for item in read.annotations if not item.iscrowd} & categories.keys())
    labels = {category: label for label, category in enumerate(used)}
    boxes: dict[int, list[Box]] = {picture: [] for picture in pictures}
    for place, item in enumerate(read.annotations):
        where = f"{table}: annotation {place if item.id is None else item.id}"
        picture = pictures.get(item.image_id)
        if picture is None:
            raise DataError(f"{where}: no image has the id {item.image_id}; add it, or remove the annotation")
        if item.category_id not in categories:
            known = ", ".join(f"{key} ({name})" for key, name in sorted(categories.items()))
            raise DataError(f"{where}: no category has the id {item.category_id}; known: {known or 'none'}")
        if not item.iscrowd:
            corners = _inside(where, item.bbox, picture)
            boxes[picture.id].append((labels[item.category_id], *corners))
    return [categories[category] for category in used], boxes


def _inside(where: str, box: tuple[float, float, float, float], picture: _Picture) -> tuple[float, float, float, float]:
    """Corners within the picture."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    text = f"{where}: the box {list(box)} (left, top, width, height)"
    if width <= 0 or height <= 0:
        raise DataError(f"{text} has no size; remove it")
    if min(left, top) < -SLACK or right > picture.width + SLACK or bottom > picture.height + SLACK:
        raise DataError(
            f"{text} reaches out of {picture.file_name}, which has {picture.width}x{picture.height} pixels; "
            "correct the box, or the size in `images`"
        )
    return max(left, 0.0), max(top, 0.0), min(right, float(picture.width)), min(bottom, float(picture.height))


def _unique(table: Path, what: str, items: Mapping[int, str], count: int) -> Mapping[int, str]:
    if len(items) < count:
        raise DataError(f"{table}: two entries of one {what} id; give each its own")
    return items
