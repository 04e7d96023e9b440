"""Demo: 2,624 photographs of solar cells, 300x300 pixels, from the package elpv-dataset (images CC BY-NC-SA 4.0).

Electroluminescence images of 44 photovoltaic modules with a defect probability judged by experts, and the type of the
cell. As classes: functional or defective, or with the column `cell` the types. As a number: the probability. As labels:
defective, polycrystalline.
Sources: Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence
Imagery", EU PVSEC 2018; Deitsch et al., "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185, 2019.
"""

import importlib.resources
from pathlib import Path

from PIL import Image

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, SourceConfig, file_stamp
from phonefit.models.errors import DataError
from phonefit.models.targets import Target, TargetKind

LABELS = ("functional", "defective")
MANY_LABELS = ("defective", "polycrystalline")
NUMBER = "defect probability"
CELLS = ("monocrystalline", "polycrystalline")
CELL_COLUMN = "cell"
THRESHOLD = 0.5
"""A cell with at least this defect probability (0, 1/3, 2/3 or 1) is defective."""

INSTALL = "make setup, or pip install elpv-dataset==1.0.0.post1"


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load the packaged photographs. A sample's name is its path inside the package.

    Raises:
        DataError: the package is not installed, its list of labels is not what it was, or it has no such column.
    """
    cells = config.column == CELL_COLUMN and config.kind == "class"
    if config.column is not None and not cells:
        raise DataError(f"demo data: no column {config.column!r} for this task; only {CELL_COLUMN}, of classes")
    folder = package_folder()
    known = {"class": CELLS if cells else LABELS, "number": (NUMBER,), "labels": MANY_LABELS, "picture": ("picture",)}
    labels = known[config.kind]
    candidates = (
        Candidate(
            name, int(cell == "poly") if cells else _target(config.kind, probability, cell), file_stamp(folder / name)
        )
        for name, probability, cell in _lines(folder / "labels.csv")
    )

    def read(name: str) -> Image.Image:
        return open_picture(folder / name)

    return collect("demo data", labels, candidates, read, config.limit, progress, cache, config.kind)


def package_folder() -> Path:
    """Where the photographs are: `labels.csv` names them.

    Raises:
        DataError: the package is not installed.
    """
    try:
        return Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    except ModuleNotFoundError:
        raise DataError(f"the demo data is not installed; run: {INSTALL}") from None


def _target(kind: TargetKind, probability: float, cell: str) -> Target:
    if kind == "number":
        return probability
    if kind == "picture":
        return 0
    defective = int(probability >= THRESHOLD)
    return defective if kind == "class" else (defective, int(cell == "poly"))


def _lines(table: Path) -> list[tuple[str, float, str]]:
    """(path, defect probability, "mono" or "poly") of each line; the columns are separated by spaces."""
    try:
        lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(name, float(probability), cell) for name, probability, cell in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: not the expected list ({error}); reinstall: {INSTALL}") from error
