"""sizes.toml and its lock: read with all mistakes named, written with comments kept; stored samples still load."""

import datetime
import shutil
from pathlib import Path

import pytest

from phonefit.pipeline.errors import FileFormatError
from phonefit.pipeline.size.baseline import load_baseline, load_lock, lock_path, save_entries, save_lock
from phonefit.pipeline.size.history import load_history
from tests.size_case import anatomy, entry

GOLDEN = Path(__file__).parents[2] / "golden"
WRITTEN = """\
# ours
schema_number = 1
subjects = ["app.yaml"]  # the nightly ones

# pruned models move
[[limits]]
match = "app/*"
fail = ["5%", "64KiB"]   # or so
"""


def test_entries_come_back_and_comments_stay(tmp_path):
    path = tmp_path / "sizes.toml"
    path.write_text(WRITTEN)
    save_entries(path, {"app/a.pte": entry(10, instructions=5.0)}, ("app.yaml",), ())
    save_entries(path, {"b.pte": entry(20, subject="b.pte")}, ("b.pte",), ())
    text = path.read_text()
    assert all(part in text for part in ("# ours", "# pruned models move", "# or so"))
    loaded = load_baseline(path)
    assert loaded.subjects == ("app.yaml", "b.pte")
    assert loaded.artifacts == {"app/a.pte": entry(10, instructions=5.0), "b.pte": entry(20, subject="b.pte")}
    assert loaded.limits[0].fail == ("5%", "64KiB")


def test_writing_the_same_again_changes_no_byte(tmp_path):
    path = tmp_path / "sizes.toml"
    save_entries(path, {"a": entry(10)}, ("a",), ())
    before = path.read_bytes()
    save_entries(path, {"a": entry(10)}, ("a",), ())
    assert path.read_bytes() == before


def test_gone_artifacts_leave_both_files(tmp_path):
    path = tmp_path / "sizes.toml"
    save_entries(path, {"a": entry(10), "b": entry(20)}, ("x",), ())
    save_lock(path, {"a": anatomy(10), "b": anatomy(20)}, ())
    save_entries(path, {}, (), ("a",))
    save_lock(path, {}, ("a",))
    assert set(load_baseline(path).artifacts) == set(load_lock(path).artifacts) == {"b"}


def test_the_lock_keeps_every_part(tmp_path):
    path = tmp_path / "sizes.toml"
    save_lock(path, {'a "quoted".pte': anatomy(10)}, ())
    assert load_lock(path).artifacts == {'a "quoted".pte': anatomy(10)}
    assert load_lock(tmp_path / "none.toml").artifacts == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema_number = 9", "reads up to 1"),
        ("= 5", "not TOML"),
        ("[[limits]]\nwran = '1%'\n[[limits]]\nmeasure = 'size'", r"2 wrong key\(s\)"),
        ("[artifacts.a]\nbytes = 5", "artifacts.a.subject"),
        ("limit = 5", "limit: Extra inputs"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, text, said):
    path = tmp_path / "sizes.toml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=said) as caught:
        load_baseline(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileFormatError, match="phonefit size bless"):
        load_baseline(tmp_path / "sizes.toml")


def test_stored_samples_still_load(tmp_path):
    for name in ("sizes_1.toml", "sizes_1.lock.json", "sizes_1.history.jsonl"):
        shutil.copy(GOLDEN / name, tmp_path)
    path = tmp_path / "sizes_1.toml"
    loaded = load_baseline(path)
    entry_, parts = loaded.artifacts["tiny/compressed.tflite"], load_lock(path).artifacts["tiny/compressed.tflite"]
    assert entry_.blessed == datetime.date(2026, 11, 24)
    assert entry_.sha256 == parts.sha256
    assert sum(entry_.sections.values()) == entry_.bytes == parts.bytes == sum(part.bytes for part in parts.parts)
    assert entry_.tools["torch"]
    assert loaded.limits[0].budget == "1MB"
    assert lock_path(path).name == "sizes_1.lock.json"
    (line,) = [
        line for line in load_history(tmp_path / "sizes_1.history.jsonl") if line.name == "tiny/compressed.tflite"
    ]
    assert line.bytes == entry_.bytes
