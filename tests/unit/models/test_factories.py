"""Which code counts as that behind a factory, and that telling it apart stays cheap with thousands of modules."""

import sys
import sysconfig
from types import ModuleType

import pytest

from phonefit.models import factories
from phonefit.models.factories import code_digest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file below the folder of the factory, and have it loaded as a module."""

    def written(name, path, content):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        module = ModuleType(name)
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)

    written("own_network", "own_network.py", "width = 1")
    return written


def test_what_lies_beside_the_factory_counts_and_what_is_installed_there_does_not(write):
    first = code_digest("own_network:build")
    write("installed", ".venv/lib/site-packages/installed.py", "width = 1")
    assert code_digest("own_network:build") == first
    write("own_layers", "own_layers.py", "width = 1")
    second = code_digest("own_network:build")
    write("own_layers", "own_layers.py", "width = 2")
    assert len({first, second, code_digest("own_network:build")}) == 3


def test_the_folders_of_python_are_asked_for_once_and_not_for_each_module(write, monkeypatch):
    factories._libraries.cache_clear()
    asked = []
    monkeypatch.setattr(sysconfig, "get_path", lambda name: asked.append(name) or "/usr/lib/python3")
    for number in range(50):
        write(f"own_part_{number}", f"own_part_{number}.py", "")
    code_digest("own_network:build")
    factories._libraries.cache_clear()
    assert len(asked) == 4
