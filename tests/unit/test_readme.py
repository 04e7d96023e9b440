"""The README stays true: its commands, targets, recipes, Python names and folders exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import phonefit
from phonefit.pipeline.cli import app
from phonefit.pipeline.recipe_file import shipped_recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SHELL = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("phonefit ")])
def test_commands_parse(line):
    words = shlex.split(line.split(">")[0], comments=True)[1:]
    command = get_command(app)
    while (subcommands := getattr(command, "commands", None)) and words:
        command, words = subcommands[words[0]], words[1:]
    command.make_context("phonefit", words)


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("make ")])
def test_make_targets_exist(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_commands_in_the_table_exist():
    commands = set(get_command(app).commands)
    named = set(re.findall(r"^\| `phonefit (\w+)", README, flags=re.MULTILINE)) | {"models", "devices"}
    assert named == commands


def test_python_names_exist():
    (source,) = [text for language, text in BLOCKS if language == "python"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "phonefit"
            for name in node.names:
                assert callable(getattr(phonefit, name.name))


def test_recipes_and_folders_exist():
    for name in re.findall(r"phonefit (?:run|search|recipes show) ([\w-]+)(?![\w.-])", README):
        assert name in shipped_recipes() or name in ("RECIPE", "mine"), name
    for folder in re.findall(r"^\| `([\w/]+)/` \|", README, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
