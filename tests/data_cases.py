"""A small case of real files for every data source. A new source is one entry of `CASES`."""

import json
import struct
from dataclasses import dataclass, replace
from functools import cache
from unittest.mock import patch

import numpy as np
from PIL import Image

from phonefit.models.data import SourceConfig, drawn_faces, drawn_signs, load_data
from phonefit.models.data.dataset import DataSet
from tests.tiny import LABELS, SIZE, colour_pixels, write_folder

PER_CLASS = 6


@dataclass
class Case:
    """A source with real files: its settings and the labels that must come out."""

    source: str
    config: SourceConfig
    labels: tuple[str, ...]

    def load(self, limit=None, **arguments) -> DataSet:
        return load_data(self.source, replace(self.config, limit=limit or self.config.limit), **arguments)


def image_folder_case(folder):
    return Case("image_folder", SourceConfig(write_folder(folder, PER_CLASS)), tuple(sorted(LABELS)))


def csv_case(folder):
    write_folder(folder / "pictures", PER_CLASS)
    paths = sorted((folder / "pictures").rglob("*.png"))
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in paths]
    (folder / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return Case("csv", SourceConfig(folder / "table.csv"), tuple(sorted(LABELS)))


def write_idx(path, values):
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 0x08, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())
    return path


def idx_case(folder):
    pixels, targets = colour_pixels(PER_CLASS * len(LABELS), seed=0)
    images, labels = write_idx(folder / "images", pixels), write_idx(folder / "labels", targets + 9)
    return Case("idx", SourceConfig(images, labels), ("9", "10", "11"))


def demo_case(folder):
    return Case("demo", SourceConfig(limit=PER_CLASS * 2), ("functional", "defective"))


@dataclass
class DrawnFaces(Case):
    """A few persons of those who could be drawn."""

    def load(self, limit=None, **arguments) -> DataSet:
        with patch.object(drawn_faces, "PERSONS", len(self.labels)):
            return super().load(limit, **arguments)


def drawn_faces_case(folder):
    labels = ("person000", "person001", "person002")
    return DrawnFaces("drawn_faces", SourceConfig(limit=PER_CLASS * len(labels)), labels)


def coco_case(folder):
    """A box around the middle of each picture, but of the last, whose box is a crowd."""
    write_folder(folder / "pictures", PER_CLASS)
    paths = sorted((folder / "pictures").rglob("*.png"))
    images = [
        {"id": place, "file_name": path.relative_to(folder / "pictures").as_posix(), "width": SIZE, "height": SIZE}
        for place, path in enumerate(paths)
    ]
    annotations = [
        {
            "image_id": place,
            "category_id": 7 + LABELS.index(path.parent.name),
            "bbox": [8, 6, 12, 20],
            "iscrowd": int(path is paths[-1]),
        }
        for place, path in enumerate(paths)
    ]
    categories = [{"id": 7 + place, "name": label} for place, label in enumerate((*LABELS, "never seen"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return Case("coco", SourceConfig(folder / "pictures", folder / "boxes.json", kind="boxes"), LABELS)


@dataclass
class DrawnSigns(Case):
    """A few of the pictures that could be drawn, each drawn once while they are loaded, and anew when it is read."""

    def load(self, limit=None, **arguments) -> DataSet:
        once = cache(drawn_signs.composed)
        with patch.multiple(drawn_signs, PICTURES=10, composed=once):
            return super().load(limit, **arguments)


def drawn_signs_case(folder):
    return DrawnSigns("drawn_signs", SourceConfig(limit=10, kind="boxes"), drawn_signs.LABELS)


def csv_numbers_case(folder):
    """Each picture's number is the mean of its red channel; the class decides what is in it."""
    write_folder(folder / "pictures", PER_CLASS)
    paths = sorted((folder / "pictures").rglob("*.png"))
    rows = [f"{path.relative_to(folder)},{np.asarray(Image.open(path))[..., 0].mean():.3f}" for path in paths]
    (folder / "table.csv").write_text("\n".join(["path,value", *rows]) + "\n")
    return Case("csv", SourceConfig(folder / "table.csv", kind="number"), ("value",))


def csv_labels_case(folder):
    """Labels by name, none for blue pictures."""
    write_folder(folder / "pictures", PER_CLASS)
    labels = {"red": "warm | bright", "green": "bright", "blue": ""}
    paths = sorted((folder / "pictures").rglob("*.png"))
    rows = [f"{path.relative_to(folder)},{labels[path.parent.name]}" for path in paths]
    (folder / "table.csv").write_text("\n".join(["path,labels", *rows]) + "\n")
    return Case("csv", SourceConfig(folder / "table.csv", kind="labels"), ("bright", "warm"))


def demo_numbers_case(folder):
    return Case("demo", SourceConfig(limit=PER_CLASS * 2, kind="number"), ("defect probability",))


def demo_labels_case(folder):
    return Case("demo", SourceConfig(limit=PER_CLASS * 2, kind="labels"), ("defective", "polycrystalline"))


def pictures_case(folder):
    """Any folders, which mean nothing here."""
    write_folder(folder / "deep", PER_CLASS)
    return Case("image_folder", SourceConfig(folder, kind="picture"), ("picture",))


def demo_pictures_case(folder):
    return Case("demo", SourceConfig(limit=PER_CLASS * 2, kind="picture"), ("picture",))


OTHER_TARGETS = {
    ("image_folder", "picture"): pictures_case,
    ("demo", "picture"): demo_pictures_case,
    ("csv", "number"): csv_numbers_case,
    ("csv", "labels"): csv_labels_case,
    ("demo", "number"): demo_numbers_case,
    ("demo", "labels"): demo_labels_case,
    ("coco", "boxes"): coco_case,
    ("drawn_signs", "boxes"): drawn_signs_case,
}
"""What sources give besides classes."""
CASES = {
    "image_folder": image_folder_case,
    "csv": csv_case,
    "idx": idx_case,
    "demo": demo_case,
    "drawn_faces": drawn_faces_case,
}
