"""The history of sizes: appended lines that survive kills and crowds, and slow creep."""

import datetime
import multiprocessing
import os
import subprocess

import pytest

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.size.history import append, creep, creeps, lines_of, load_history, parse_since
from phonefit.pipeline.size.limits import Amount, Limit
from phonefit.pipeline.size.repository import tag_day
from tests.size_case import NOW, measured

DAY = datetime.timedelta(days=1)


def small_steps(count: int = 30, event="check"):
    """Half a per mille more each day."""
    return [
        line
        for day in range(count)
        for line in lines_of([measured("a", 99_000 + 50 * day)], event, NOW + day * DAY, "c", "small")
    ]


def test_lines_come_back(tmp_path):
    lines = small_steps(3)
    append(tmp_path / "h.jsonl", lines[:1])
    append(tmp_path / "h.jsonl", lines[1:])
    assert load_history(tmp_path / "h.jsonl") == lines
    assert load_history(tmp_path / "none.jsonl") == []


def test_a_line_cut_off_by_a_kill_costs_itself_only(tmp_path, caplog):
    path, lines = tmp_path / "h.jsonl", small_steps(3)
    append(path, lines[:2])
    path.write_bytes(path.read_bytes()[:-40])
    append(path, lines[2:])
    assert load_history(path) == [lines[0], lines[2]]
    assert "h.jsonl:2" in caplog.text


def _append_many(path):
    for line in small_steps(20):
        append(path, [line] * 5)


def test_processes_do_not_cut_each_others_lines(tmp_path):
    path = tmp_path / "h.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(load_history(path)) == 4 * 20 * 5


def test_many_small_steps_add_up():
    found = creep(small_steps(), "a", "bytes", None, Amount(relative=0.01))
    assert (found.first, found.last, found.steps, found.largest) == (100_000, 101_450, 29, 50)
    assert found.exceeded
    assert "+1.45%" in found.text
    assert not creep(small_steps(), "a", "bytes", None, Amount(relative=0.02)).exceeded


def test_blessed_steps_add_up_too():
    assert creep(small_steps(event="bless"), "a", "bytes", None, Amount(relative=0.01)).exceeded


@pytest.mark.parametrize(
    ("since", "first"),
    [
        (5, 101_200),  # five entries back
        (NOW.date() + 20 * DAY, 101_000),
        (NOW.date() - 5 * DAY, 100_000),  # before the history began: from its first line
        (1000, 100_000),
    ],
)
def test_the_period_is_a_date_or_a_number_of_entries(since, first):
    assert creep(small_steps(), "a", "bytes", since, Amount()).first == first


def test_a_day_between_lines_counts_from_the_line_before():
    lines = [small_steps()[0], small_steps()[20]]
    assert creep(lines, "a", "bytes", NOW.date() + 10 * DAY, Amount()).total == 1000


def test_too_few_lines_or_no_figure_tell_nothing():
    assert creep(small_steps(1), "a", "bytes", None, Amount()) is None
    assert creep(small_steps(), "a", "instructions", None, Amount()) is None
    assert creep(small_steps(), "b", "bytes", None, Amount()) is None


def test_sections_creep_and_artifacts_have_their_own_limit():
    assert creep(small_steps(), "a", "section:weights", None, Amount(absolute=1000)).exceeded
    (default,) = creeps(small_steps(), "bytes", None, [])
    assert not default.exceeded
    (tight,) = creeps(small_steps(), "bytes", None, [Limit(match="a*", creep="1%")])
    assert tight.exceeded


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("30d", datetime.date(2026, 1, 31)),
        ("2w", datetime.date(2026, 2, 16)),
        ("2026-02-01", datetime.date(2026, 2, 1)),
        ("12", 12),
        (7, 7),
        (None, None),
        (datetime.date(2026, 2, 1), datetime.date(2026, 2, 1)),
    ],
)
def test_words_for_a_period(text, since):
    assert parse_since(text, NOW.date()) == since


def test_a_period_can_begin_at_a_tag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dated = {**os.environ, "GIT_AUTHOR_DATE": "2026-01-17T12:00:00Z", "GIT_COMMITTER_DATE": "2026-01-17T12:00:00Z"}
    named = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"], ["tag", "v1.0"]):
        subprocess.run([*named, *words], check=True, env=dated)
    assert parse_since("v1.0", NOW.date(), tag_day) == datetime.date(2026, 1, 17)
    with pytest.raises(RecipeError, match=r"v2\.0.*no such tag"):
        parse_since("v2.0", NOW.date(), tag_day)


@pytest.mark.parametrize("text", ["yesterday", "0", "-3", "d", "2026-13-01"])
def test_other_words_are_refused(text):
    with pytest.raises(RecipeError, match="number of entries"):
        parse_since(text, NOW.date())
