"""The history of sizes: a file of JSON lines that is only appended to, and the slow creep that it shows."""

import datetime
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from phonefit.models.record import Frozen, canonical_json
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.size.limits import SECTION, Amount, Limit, rule_for
from phonefit.pipeline.size.measured import Measured
from phonefit.pipeline.store import explain_disk_errors

logger = logging.getLogger(__name__)
SCHEMA = 1
DEFAULT_CREEP = 0.05
"""Share that an artifact may grow by over a period, when no limit says otherwise."""
Since = datetime.date | int | None


class HistoryLine(Frozen):
    """One line: one artifact at one time.

    Attributes:
        time: in UTC.
        commit: of the repository, where it is known.
        reason: of a bless.
    """

    schema_number: int = SCHEMA
    time: datetime.datetime
    event: Literal["check", "bless"]
    commit: str = ""
    name: str
    sha256: str
    bytes: int
    sections: Mapping[str, int] = {}
    measures: Mapping[str, float] = {}
    tools: Mapping[str, str] = {}
    reason: str = ""

    def figure(self, measure: str) -> float | None:
        """A figure by the name of its measure; None where the line has none."""
        if measure == "bytes":
            return float(self.bytes)
        if measure.startswith(SECTION):
            return float(self.sections.get(measure.removeprefix(SECTION), 0))
        return self.measures.get(measure)


class Creep(Frozen):
    """What an artifact grew by over a period, all steps added up.

    Attributes:
        since: time of the line that it is counted from.
        total: last figure minus first, in the measure's unit.
        steps: changes of the figure within the period.
        largest: the largest single growth among them.
        exceeded: more than the limit allows.
    """

    name: str
    measure: str
    since: datetime.datetime
    first: float
    last: float
    total: float
    steps: int
    largest: float
    exceeded: bool

    @property
    def text(self) -> str:
        """One line for people."""
        share = f"{self.total / self.first:+.2%}" if self.first else f"{self.total:+,g}"
        return (
            f"{self.name}: {self.measure} {self.first:,g} -> {self.last:,g} ({share}) in {self.steps} steps since "
            f"{self.since:%Y-%m-%d}, the largest {self.largest:+,g}"
        )


def history_path(baseline: Path) -> Path:
    """The history beside a baseline: sizes.toml -> sizes.history.jsonl."""
    return baseline.with_suffix(".history.jsonl")


def lines_of(
    measured: Iterable[Measured],
    event: Literal["check", "bless"],
    now: datetime.datetime,
    commit: str = "",
    reason: str = "",
) -> list[HistoryLine]:
    """One line an artifact."""
    return [
        HistoryLine(
            time=now,
            event=event,
            commit=commit,
            name=item.name,
            sha256=item.anatomy.sha256,
            bytes=item.anatomy.bytes,
            sections=item.anatomy.sections(),
            measures=item.measures,
            tools=item.tools,
            reason=reason,
        )
        for item in measured
    ]


def append(path: Path, lines: Sequence[HistoryLine]) -> None:
    """Add lines in one write, under a lock on the file: processes wait for each other, and none cuts another's line.

    Raises:
        StoreError: it cannot be written.
    """
    text = "".join(canonical_json(line.as_json()) + "\n" for line in lines).encode()
    if not text:
        return
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            end = stream.seek(0, os.SEEK_END)
            if end:
                stream.seek(end - 1)
                if stream.read(1) != b"\n":  # a process was killed in the middle of its line
                    text = b"\n" + text
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def load_history(path: Path) -> list[HistoryLine]:
    """All lines by time; one that was cut off by a kill is left out with a warning. A missing file has none."""
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            lines.append(HistoryLine.model_validate(json.loads(text)))
        except (json.JSONDecodeError, ValidationError) as error:
            logger.warning("%s:%d: not a line of the history, left out (%s)", path, number, type(error).__name__)
    return sorted(lines, key=lambda line: line.time)


def parse_since(
    text: str | int | datetime.date | None,
    today: datetime.date,
    tag_day: Callable[[str], datetime.date | None] = lambda name: None,
) -> Since:
    """A date, "30d" or "8w" back from today, a number of entries, or the day of a tag of the repository.

    Args:
        tag_day: the day of a tag; None where there is no such tag.

    Raises:
        RecipeError: it is none of them.
    """
    if text is None or isinstance(text, datetime.date):
        return text
    word = str(text).strip()
    if word.isdigit() and int(word) > 0:
        return int(word)
    if word[:-1].isdigit() and word[-1:] in ("d", "w"):
        return today - datetime.timedelta(days=int(word[:-1]) * (7 if word.endswith("w") else 1))
    try:
        return datetime.date.fromisoformat(word)
    except ValueError:
        if (day := tag_day(word)) is not None:
            return day
        raise RecipeError(
            f"since {text!r}: no such tag here; give a tag, a date such as {today.isoformat()}, days as 30d, weeks as "
            "8w, or a number of entries"
        ) from None


def creep(lines: Sequence[HistoryLine], name: str, measure: str, since: Since, limit: Amount) -> Creep | None:
    """What artifact `name` grew by since then; None when the history holds fewer than two figures of it.

    Counted from the last line at or before the date (from the first after it, where there is none before), or from
    the line that many entries back. A bless does not start anew: growth that was blessed in small steps adds up too.
    """
    own = [(line, figure) for line in lines if line.name == name and (figure := line.figure(measure)) is not None]
    if isinstance(since, int):
        own = own[-since - 1 :]
    elif since is not None:
        before = [place for place, (line, _) in enumerate(own) if line.time.date() <= since]
        own = own[before[-1] :] if before else own
    if len(own) < 2:
        return None
    figures = [figure for _, figure in own]
    steps = [after - before for before, after in pairwise(figures) if after != before]
    total, allowed = figures[-1] - figures[0], limit.of(figures[0])
    return Creep(
        name=name,
        measure=measure,
        since=own[0][0].time,
        first=figures[0],
        last=figures[-1],
        total=total,
        steps=len(steps),
        largest=max(steps, default=0.0),
        exceeded=allowed is not None and total > allowed,
    )


def limited_creep(
    lines: Sequence[HistoryLine], name: str, measure: str, since: Since, limits: Sequence[Limit]
) -> Creep | None:
    """The creep of one artifact, held against its limit; without one, 5 % is too much."""
    limit = rule_for(limits, name, measure).creep
    return creep(lines, name, measure, since, Amount(relative=DEFAULT_CREEP) if limit == Amount() else limit)


def creeps(lines: Sequence[HistoryLine], measure: str, since: Since, limits: Sequence[Limit]) -> list[Creep]:
    """The creep of each artifact in the history."""
    names = dict.fromkeys(line.name for line in lines)
    return [found for name in names if (found := limited_creep(lines, name, measure, since, limits)) is not None]
