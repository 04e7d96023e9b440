"""Comparing pictures by an embedding: two of them, or one with those who are enrolled. Faces, or anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.device_bench.runtimes.runtime import Session
from phonefit.models.artifact import Artifact, load_artifact
from phonefit.models.data.align import Doubles, aligned, cropped
from phonefit.models.data.picture import open_picture
from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.decode import cosine, is_same, unit_vector
from phonefit.models.decoding import EmbeddingDecoding
from phonefit.models.record import Record
from phonefit.pipeline.deploy import find_models
from phonefit.pipeline.errors import DataError, FileFormatError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.store import explain_disk_errors


@dataclass(frozen=True)
class Part:
    """What to look at of a picture: the face with these landmarks, aligned; or a box; or all of it.

    Attributes:
        landmarks: float64 [5, 2], see `models.data.align`.
        box: left, top, right, bottom in pixels.
    """

    landmarks: Doubles | None = None
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Embedder:
    """A converted file of an embedding, loaded into its own runtime."""

    artifact: Artifact
    decoding: EmbeddingDecoding
    session: Session

    def embed(self, path: Path, part: Part) -> Doubles:
        """The vector of a picture, float64 [D], of length 1.

        Raises:
            DataError: the picture cannot be read, or has no such part.
        """
        try:
            image = open_picture(path)
            if part.landmarks is not None:
                image = aligned(image, part.landmarks)
            elif part.box is not None:
                image = cropped(image, part.box)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        inputs = normalise(apply(image, self.artifact.preprocess)[None], self.artifact.preprocess)
        return unit_vector(run_samples(self.session, inputs)[0])


class Enrolled(Record):
    """Content of NAME.json in a gallery: who is known, by what a model makes of their pictures.

    Attributes:
        model: sha256 of the model file; vectors of another one mean something else.
        pictures: where the vectors are from, one for each.
    """

    schema_number: int = 1
    name: str
    model: str
    pictures: tuple[str, ...]
    vectors: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Match:
    """Who in a gallery is nearest to a picture.

    Attributes:
        known: the cosine reaches the model's threshold.
    """

    name: str
    cosine: float
    known: bool


def open_embedder(model: str, runs: Path) -> Embedder:
    """Load a model file.

    Args:
        model: path of an artifact (its file or its JSON); or a run, whose best file is taken: its name in the runs
            folder, or a folder with converted files, of which the first is taken.

    Raises:
        FileFormatError: there is none, it was changed, or it is not of an embedding.
    """
    artifact, path = load_artifact(Path(model)) if Path(model).is_file() else _best_of(model, runs)
    if not isinstance(artifact.decoding, EmbeddingDecoding):
        raise FileFormatError(
            f"{path} is a model for {artifact.task}, which says nothing about whether two pictures show the same; "
            "give one whose recipe has the task embedding, such as recipe faces"
        )
    with TemporaryDirectory() as folder, captured_output(Path(folder) / "log"):  # libraries greet on the terminal
        session = runtime_module(artifact.runtime).load(path, threads=1)
    return Embedder(artifact, artifact.decoding, session)


def _best_of(model: str, runs: Path) -> tuple[Artifact, Path]:
    files, trial = find_models(model, runs), runs / model / "trial.json"
    best = TrialResult.load(trial).shown.artifact.sha256 if trial.is_file() else None
    path, artifact = next(((path, one) for path, one in files.items() if one.sha256 == best), next(iter(files.items())))
    return artifact, path


def compare(embedder: Embedder, pictures: Sequence[Path], parts: Sequence[Part]) -> tuple[float, bool]:
    """Cosine of two pictures, and whether they show the same."""
    first, second = (embedder.embed(path, part) for path, part in zip(pictures, parts, strict=True))
    return cosine(first, second), is_same(first, second, embedder.decoding)


def enrol(embedder: Embedder, name: str, pictures: Sequence[Path], parts: Sequence[Part], gallery: Path) -> Enrolled:
    """Add pictures to what the gallery knows of someone; a picture of the same path takes the place of the old one.

    Raises:
        DataError: the name cannot be a file's, or a picture cannot be read; nothing is written then.
        FileFormatError: they were enrolled with another model.
        StoreError: the gallery cannot be written.
    """
    if not name.strip() or name.startswith(".") or "/" in name or "\0" in name:
        raise DataError(f"{name!r} cannot be the name of a file; use a name without a slash that does not start with .")
    path, known = gallery / f"{name}.json", dict[str, tuple[float, ...]]()
    if path.is_file():
        before = _load(path, embedder)
        known = dict(zip(before.pictures, before.vectors, strict=True))
    for picture, part in zip(pictures, parts, strict=True):
        known[str(picture)] = tuple(embedder.embed(picture, part).tolist())
    record = Enrolled(name=name, model=embedder.artifact.sha256, pictures=tuple(known), vectors=tuple(known.values()))
    with explain_disk_errors(gallery):
        gallery.mkdir(parents=True, exist_ok=True)
        record.save(path)
    return record


def identify(embedder: Embedder, picture: Path, part: Part, gallery: Path) -> Match:
    """Who of the gallery has the picture nearest to this one.

    Raises:
        DataError: nobody is enrolled, or the picture cannot be read.
        FileFormatError: someone was enrolled with another model.
    """
    people = [_load(path, embedder) for path in sorted(gallery.glob("*.json"))]
    if not people:
        raise DataError(f"{gallery}: nobody is enrolled; first: phonefit enrol NAME PICTURE --gallery {gallery}")
    vector = embedder.embed(picture, part)
    near = {one.name: max(cosine(vector, np.asarray(other)) for other in one.vectors) for one in people}
    name = max(near, key=near.__getitem__)
    return Match(name, near[name], near[name] >= embedder.decoding.threshold)


def _load(path: Path, embedder: Embedder) -> Enrolled:
    record = Enrolled.load(path)
    if record.model != embedder.artifact.sha256:
        raise FileFormatError(
            f"{path}: {record.name} was enrolled with another model than {embedder.artifact.file}; give that one as "
            "--model, or delete this file and enrol again"
        )
    return record


def parts_of(count: int, landmarks: Sequence[str], crops: Sequence[str]) -> list[Part]:
    """What to look at of so many pictures, from numbers with commas: none, or one for each picture in their order.

    Raises:
        DataError: another number of them, both kinds at once, or no such numbers.
    """
    if landmarks and crops:
        raise DataError("give --landmarks or --crop, not both: landmarks say where the face is")
    given = [*landmarks, *crops]
    if len(given) not in (0, count):
        raise DataError(f"{len(given)} × --{'landmarks' if landmarks else 'crop'} for {count} pictures; one for each")
    if landmarks:
        points = (np.asarray(_numbers("--landmarks", text, 10)).reshape(5, 2) for text in landmarks)
        return [Part(landmarks=each) for each in points]
    if crops:
        boxes = ([round(value) for value in _numbers("--crop", text, 4)] for text in crops)
        return [Part(box=(left, top, right, bottom)) for left, top, right, bottom in boxes]
    return [Part()] * count


def _numbers(option: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(f"{option} {text!r}: expected {count} numbers with commas between them")
    return numbers
