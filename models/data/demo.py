"""Demo: 2,624 photographs of solar cells, 300x300 pixels, from the package elpv-dataset (images CC BY-NC-SA 4.0).

Electroluminescence images of 44 photovoltaic modules with a defect probability judged by experts. Sources: Buerhop-Lutz
et al., "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery", EU PVSEC 2018;
Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar
Energy 185, 2019.
"""

import importlib.resources
from pathlib import Path

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, SourceConfig, file_stamp
from phonefit.models.errors import DataError

LABELS = ("functional", "defective")
THRESHOLD = 0.5
"""A cell with at least this defect probability (0, 1/3, 2/3 or 1) is defective."""

INSTALL = "make setup, or pip install elpv-dataset==1.0.0.post1"


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load the packaged photographs. A sample's name is its path inside the package.

    Raises:
        DataError: the package is not installed, or its list of labels is not what it was.
    """
    folder = _folder()
    candidates = (
        Candidate(name, int(probability >= THRESHOLD), file_stamp(folder / name))
        for name, probability in _probabilities(folder / "labels.csv")
    )
    return collect(
        "demo data", LABELS, candidates, lambda name: open_picture(folder / name), config.limit, progress, cache
    )


def _folder() -> Path:
    try:
        return Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    except ModuleNotFoundError:
        raise DataError(f"the demo data is not installed; run: {INSTALL}") from None


def _probabilities(table: Path) -> list[tuple[str, float]]:
    """(path, defect probability) of each line; the columns are separated by spaces: path, probability, cell type."""
    try:
        lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(name, float(probability)) for name, probability, _ in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: not the expected list ({error}); reinstall: {INSTALL}") from error
