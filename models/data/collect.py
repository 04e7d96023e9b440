"""Reading what a source found into a DataSet."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from PIL import Image

from phonefit.models.data.dataset import DataSet, Sample, Unreadable
from phonefit.models.data.picture import picture_digest
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, balanced_shares, map_in_threads
from phonefit.models.errors import DataError
from phonefit.models.record import digest_of
from phonefit.models.targets import Target, TargetKind, groups_of


def collect(
    where: str,
    labels: Sequence[str],
    candidates: Iterable[Candidate],
    read: Callable[[str], Image.Image],
    limit: int | None,
    progress: OnProgress,
    cache: DigestCache,
    kind: TargetKind = "class",
) -> DataSet:
    """Read what a source found, each picture once, and make it a DataSet.

    With a `limit`, pictures are taken in the order of the sha256 of their names, which is a fixed random order; an
    unreadable one is replaced by the next of its class, and what was not needed is not read.

    Args:
        where: the source in messages, such as its folder.
        labels: class names in the order of `Candidate.label`; what the number is, where it is one.
        candidates: in any order.
        read: gives the picture of a candidate's name as RGB; raises DataError with the reason when it cannot.
        limit: see SourceConfig.
        progress: called after each picture that had to be decoded.
        cache: asked before a picture is decoded.
        kind: of the candidates' labels. Only classes are balanced by a limit.

    Raises:
        DataError: fewer than two classes, or a class or label without a readable picture.
    """
    if kind == "class" and len(labels) < 2:
        found = f"one class only, {labels[0]!r}" if labels else "no classes"
        raise DataError(
            f"{where}: found {found}; there is nothing to tell apart, give pictures of at least two classes"
        )
    if not labels:
        raise DataError(f"{where}: no picture has a label; there is nothing to learn")
    ordered = sorted(candidates, key=lambda candidate: (candidate.name, candidate.label))
    quotas = _quotas(where, labels if kind == "class" else labels[:1], kind, ordered, limit)
    samples: list[Sample] = []
    unreadable: list[Unreadable] = []
    waiting = {
        group: [found for found in ordered if _group(kind, found.label) == group] for group in range(len(quotas))
    }
    if limit is not None:
        for some in waiting.values():
            some.sort(key=lambda candidate: hashlib.sha256(_bytes(candidate.name)).digest())
    while True:
        have = Counter(_group(kind, sample.label) for sample in samples)
        batch = [found for label, some in waiting.items() for found in some[: quotas[label] - have[label]]]
        if not batch:
            break
        waiting = {label: some[quotas[label] - have[label] :] for label, some in waiting.items()}
        for result in _digests(batch, read, progress, cache):
            if isinstance(result, Sample):
                samples.append(result)
            else:
                unreadable.append(result)
    _require_every_class(where, labels, kind, samples, unreadable)
    samples.sort(key=lambda sample: (sample.name, sample.label))
    unreadable.sort(key=lambda failed: failed.name)
    return DataSet(
        labels=tuple(labels),
        samples=tuple(samples),
        unreadable=tuple(unreadable),
        read=lambda sample: read(sample.name),
        digest=digest_of([list(labels), [[sample.name, sample.label, sample.digest] for sample in samples]]),
        kind=kind,
    )


def _group(kind: TargetKind, label: Target) -> int:
    """What a limit takes equal parts of: the classes, or all pictures as one."""
    return int(label) if kind == "class" and not isinstance(label, tuple) else 0


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # file names need not be text


def _quotas(
    where: str, labels: Sequence[str], kind: TargetKind, candidates: Sequence[Candidate], limit: int | None
) -> tuple[int, ...]:
    counts: Mapping[int, int] = Counter(_group(kind, candidate.label) for candidate in candidates)
    available = [counts[label] for label in range(len(labels))]
    if limit is None:
        return tuple(available)
    if limit < len(labels):
        raise DataError(f"{where}: data.limit {limit} is below the number of classes, {len(labels)}; raise it")
    return balanced_shares(available, limit)


def _digests(
    batch: Sequence[Candidate], read: Callable[[str], Image.Image], progress: OnProgress, cache: DigestCache
) -> Iterator[Sample | Unreadable]:
    unknown = []
    for candidate in batch:
        digest = cache.get(candidate.name, candidate.stamp) if candidate.stamp is not None else None
        if digest is None:
            unknown.append(candidate)
        else:
            yield Sample(candidate.name, candidate.label, digest)

    def examine(candidate: Candidate) -> Sample | Unreadable:
        try:
            return Sample(candidate.name, candidate.label, picture_digest(read(candidate.name)))
        except DataError as error:
            return Unreadable(candidate.name, str(error))

    with warnings.catch_warnings():
        # a picture that is too large is reported as unreadable; Pillow would warn about it as well
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for done, (candidate, result) in enumerate(
            zip(unknown, map_in_threads(examine, unknown), strict=True), start=1
        ):
            if isinstance(result, Sample) and candidate.stamp is not None:
                cache.put(candidate.name, candidate.stamp, result.digest)
            progress(done, len(unknown))
            yield result


def _require_every_class(
    where: str,
    labels: Sequence[str],
    kind: TargetKind,
    samples: Sequence[Sample],
    unreadable: Sequence[Unreadable],
) -> None:
    present = {group for sample in samples for group in groups_of(kind, sample.label)}
    missing = [label for index, label in enumerate(labels) if index not in present]
    if not missing:
        return
    examples = "".join(f"\n  {failed.name}: {failed.reason}" for failed in unreadable[:10])
    because = f"; {len(unreadable)} could not be read, such as{examples}" if unreadable else ""
    raise DataError(
        f"{where}: no readable picture of {', '.join(map(repr, missing))} (classes found: {', '.join(labels)}); "
        f"add pictures or remove the class{because}"
    )
