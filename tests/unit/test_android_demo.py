"""The app's sources: a version that must be the one here, and texts in two languages. More: `make android-check`."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

DEMO = Path(__file__).resolve().parents[2] / "android_demo"
VERSIONS = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text())["versions"]


def test_executorch_is_the_release_that_writes_the_files():
    assert VERSIONS["executorch"] == version("executorch").split("+")[0]


def test_every_text_is_there_in_spanish_with_the_same_places():
    english, spanish = (_texts(folder) for folder in ("values", "values-es"))
    assert english.keys() == spanish.keys()
    assert {name: _places(text) for name, text in english.items()} == {
        name: _places(text) for name, text in spanish.items()
    }


def _texts(folder: str) -> dict[str, str]:
    tree = ElementTree.parse(DEMO / "app/src/main/res" / folder / "strings.xml")
    return {item.attrib["name"]: item.text or "" for item in tree.iter("string") if item.get("translatable") != "false"}


def _places(text: str) -> list[str]:
    return sorted(re.findall(r"%\d\$s", text))
