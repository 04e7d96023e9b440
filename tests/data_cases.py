"""A small case of real files for every data source. A new source is one entry of `CASES`."""

import struct
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.data.dataset import DataSet
from tests.tiny import LABELS, colour_pixels, write_folder

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


OTHER_TARGETS = {
    ("csv", "number"): csv_numbers_case,
    ("csv", "labels"): csv_labels_case,
    ("demo", "number"): demo_numbers_case,
    ("demo", "labels"): demo_labels_case,
}
"""Sources that give more than classes."""
CASES = {"image_folder": image_folder_case, "csv": csv_case, "idx": idx_case, "demo": demo_case}
