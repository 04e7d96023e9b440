"""Data sources, one file each. `SOURCES` lists them."""

from phonefit.models.data import csv_file, demo, idx, image_folder
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.source import DigestCache, Load, NoCache, OnProgress, SourceConfig
from phonefit.models.errors import UnknownNameError

SOURCES: dict[str, Load] = {
    "image_folder": image_folder.load,
    "csv": csv_file.load,
    "idx": idx.load,
    "demo": demo.load,
}


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
    return SOURCES[source](config, progress, cache or NoCache())
