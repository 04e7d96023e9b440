"""Preparing: data source -> split -> resized pictures on disk, which training, calibration and evaluation read."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from phonefit.models.data import load_data
from phonefit.models.data.dataset import DataSet, Sample, Side, Unreadable
from phonefit.models.data.picture import picture_digest
from phonefit.models.data.preprocess import apply, normalise, placed_target
from phonefit.models.data.source import OnProgress, SourceConfig, balanced_shares, map_in_threads
from phonefit.models.data.split import Conflict, find_conflicts, first_of_each, split
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.record import Record, digest_of
from phonefit.models.spec import Preprocess
from phonefit.models.targets import SplitBy, Target, TargetKind, Targets, rows_by_class, targets_array
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import DataError, RecipeError
from phonefit.pipeline.listing import ListingFile
from phonefit.pipeline.recipe import DataConfig, InputConfig
from phonefit.pipeline.store import Store, explain_disk_errors

CODE_VERSION = 1
RECORD_FILE = "pictures.json"
GEOMETRY = ("height", "width", "resize", "crop_share", "padding", "interpolation")
"""The fields of Preprocess that shape the stored pictures; mean and std are applied on reading."""


class PicturesRecord(Record):
    """Content of pictures.json.

    Attributes:
        names: side -> names of its samples, in the order of the rows.
    """

    schema_number: int = 1
    labels: tuple[str, ...]
    names: Mapping[Side, tuple[str, ...]]


@dataclass
class PreparedPictures:
    """The data set, split and resized: implements `Pictures`.

    Attributes:
        labels: class names, in the order of the model's outputs.
        preprocess: how pictures became rows; mean and std are applied by `inputs`.
        digest: of the split, resized and normalised data.
        folder: holds SIDE.pixels.npy and SIDE.targets.npy.
        names: side -> names of its samples, in the order of the rows.
        unreadable: pictures that were left out.
        conflicts: pictures that appear under several labels.
        reused: the pictures were prepared before.
        kind: of the targets.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    digest: str
    folder: Path
    names: Mapping[Side, tuple[str, ...]]
    unreadable: tuple[Unreadable, ...]
    conflicts: tuple[Conflict, ...]
    reused: bool
    kind: TargetKind = "class"

    def pixels(self, side: Side) -> NDArray[np.uint8]:
        """RGB uint8 [N, height, width, 3], memory-mapped."""
        rows: NDArray[np.uint8] = np.load(_pixels_file(self.folder, side), mmap_mode="r")
        return rows

    def targets(self, side: Side) -> Targets:
        """What is to be learned of each picture, see `Targets`."""
        if self.kind == "picture":
            return self.pixels(side).transpose(0, 3, 1, 2)
        rows: Targets = np.load(_targets_file(self.folder, side))
        return rows

    def inputs(self, side: Side, start: int, stop: int) -> Floats:
        """Normalised rows start..stop as the model takes them: float32 [n, 3, height, width]."""
        return normalise(self.pixels(side)[start:stop], self.preprocess)

    def calibration(self, description: CalibrationSet) -> Floats:
        """Seeded sample of the training side, balanced where it has classes: float32 [n, 3, height, width].

        The classes take turns, so that each part of it is balanced too. All pictures, when there are fewer than asked.
        """
        random = np.random.default_rng(description.seed)
        classes = rows_by_class(self.targets("train"), len(self.labels))
        members = [random.permutation(rows) for rows in classes]
        shares = balanced_shares([len(rows) for rows in members], description.samples)
        turns = sorted(
            (turn, label) for label, share in enumerate(shares) for turn in range(share)
        )  # first of each class, second of each class, …
        return normalise(self.pixels("train")[[members[label][turn] for turn, label in turns]], self.preprocess)


def resolve_preprocess(base: Preprocess, overrides: InputConfig) -> Preprocess:
    """The model's usual preprocessing with the recipe's overrides; a height alone makes the input square.

    Raises:
        RecipeError: the result makes no sense, such as a std of 0.
    """
    given = overrides.model_dump(exclude_none=True)
    if "height" in given:
        given.setdefault("width", given["height"])
    try:
        return Preprocess.model_validate(base.model_dump() | given)
    except ValidationError as error:
        raise RecipeError(f"data.input: {error.errors()[0]['msg']}") from None


def prepare(
    config: DataConfig,
    preprocess: Preprocess,
    store: Store,
    progress: Progress,
    kind: TargetKind = "class",
    split_by: SplitBy = "picture",
) -> PreparedPictures:
    """Load, split and resize the data of a recipe; what the store has already is not done again.

    Args:
        kind: what the task learns of each picture.
        split_by: what the task keeps together, where the recipe does not say.

    Raises:
        DataError: the data cannot serve (see the sources and the split), or a picture is unreadable and
            `config.unreadable` is "refuse".
        StoreError: the run folder cannot be written.
    """
    dataset = load_dataset(config, store, progress, kind)
    if dataset.unreadable and config.unreadable == "refuse":
        raise DataError(_refusal(dataset.unreadable))
    by = config.split.by or split_by
    sides = split(dataset, config.split.validation, config.split.test, config.split.seed, by)
    choice: dict[str, JsonValue] = {"split": config.split.model_dump(mode="json", exclude={"by"})}
    if by != "picture":  # without it keys are those from before there was a choice
        choice["split_by"] = by
    if config.shots is not None:
        sides = {**sides, "train": first_of_each(dataset, sides["train"], config.shots)}
        choice["shots"] = config.shots
    geometry = {name: value for name, value in preprocess.as_json().items() if name in GEOMETRY}

    def build(folder: Path) -> None:
        with progress.stage("Resizing pictures", len(dataset.samples)) as advance:
            for side, indices in sides.items():
                samples = [dataset.samples[index] for index in indices]
                placed: list[Target] = []
                with _pixels_file(folder, side).open("wb") as stream:
                    for sample, size in zip(samples, _write_pixels(stream, dataset, samples, preprocess), strict=True):
                        placed.append(placed_target(kind, sample.label, size, preprocess))
                        advance()
                if kind != "picture":  # the targets are the pixels
                    targets = targets_array(kind, placed, len(dataset.labels))
                    np.save(_targets_file(folder, side), targets)
        names = {side: tuple(dataset.samples[index].name for index in indices) for side, indices in sides.items()}
        PicturesRecord(labels=dataset.labels, names=names).save(folder / RECORD_FILE)

    result = store.compute(
        "prepare",
        inputs={"data": dataset.digest},
        config={**choice, "geometry": geometry},
        code_version=CODE_VERSION,
        build=build,
        tools={"pillow": PIL.__version__},
    )
    record = PicturesRecord.load(result.path / RECORD_FILE)
    return PreparedPictures(
        labels=record.labels,
        preprocess=preprocess,
        digest=digest_of({"pictures": result.key, "mean": preprocess.mean, "std": preprocess.std}),
        folder=result.path,
        names=record.names,
        unreadable=dataset.unreadable,
        conflicts=find_conflicts(dataset),
        reused=result.reused,
        kind=kind,
    )


def _pixels_file(folder: Path, side: Side) -> Path:
    return folder / f"{side}.pixels.npy"


def _targets_file(folder: Path, side: Side) -> Path:
    return folder / f"{side}.targets.npy"


def _refusal(unreadable: Sequence[Unreadable]) -> str:
    listed = "".join(f"\n  {failed.name}: {failed.reason}" for failed in unreadable[:10])
    more = f"\n  and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
    return (
        f"{len(unreadable)} pictures cannot be read; repair or remove them, "
        f"or leave them out with data.unreadable=skip:{listed}{more}"
    )


def _write_pixels(
    stream: BinaryIO, dataset: DataSet, samples: Sequence[Sample], preprocess: Preprocess
) -> Iterator[tuple[int, int]]:
    """Write one .npy file row by row, and give the width and height that each picture had; not memory-mapped, as a full
    disk would kill the process.
    """

    def row(sample: Sample) -> tuple[bytes, tuple[int, int]]:
        try:
            image = dataset.read(sample)
        except DataError as error:  # it could be read a moment ago
            raise DataError(f"{sample.name}: {error}") from error
        if picture_digest(image) != sample.digest:
            raise DataError(f"{sample.name} changed while the data was being read; run the same command again")
        return apply(image, preprocess).tobytes(), image.size

    shape = (len(samples), preprocess.height, preprocess.width, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for content, size in map_in_threads(row, samples):
        stream.write(content)
        yield size


def load_dataset(config: DataConfig, store: Store, progress: Progress, kind: TargetKind = "class") -> DataSet:
    """The labelled pictures of a recipe, not yet split or resized; files that have not changed are not read again.

    Raises:
        DataError: the data cannot serve, see the sources.
        StoreError: the run folder cannot be written.
    """
    source = SourceConfig(config.path, config.labels_path, config.limit, kind, config.column)
    where = digest_of([config.source, str(config.path and config.path.absolute())])[:32]
    listing = ListingFile.load(store.root / "store" / "listing" / f"{where}.json")
    with _reading(progress) as report:
        dataset = load_data(config.source, source, report, listing)
    with explain_disk_errors(store.root):
        listing.save()
    return dataset


@contextlib.contextmanager
def _reading(progress: Progress) -> Iterator[OnProgress]:
    """A stage that opens with the first picture that has to be read, when their number is known."""
    with contextlib.ExitStack() as stack:
        advance = None

        def report(done: int, total: int) -> None:
            nonlocal advance
            if advance is None:
                advance = stack.enter_context(progress.stage("Reading pictures", total))
            advance()

        yield report
