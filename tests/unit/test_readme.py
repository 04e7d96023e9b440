"""The README and docs/ stay true: their commands, targets, recipes, Python names, folders and links exist."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_lines(page: Path) -> list[str]:
    """Lines of the page's blocks of commands; a backslash at a line's end joins it with the next."""
    text = "".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


SHELL = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in shell_lines(page)]


@pytest.mark.parametrize("line", [case for case in SHELL if case.values[0].startswith("phonefit ")])
def test_commands_parse(line):
    words = shlex.split(line.split(">")[0], comments=True)[1:]
    command = get_command(app)
    while (subcommands := getattr(command, "commands", None)) and words:
        command, words = subcommands[words[0]], words[1:]
    command.make_context("phonefit", words)


@pytest.mark.parametrize("line", [case for case in SHELL if case.values[0].startswith("make ")])
def test_make_targets_exist(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_commands_in_the_table_exist():
    commands = set(get_command(app).commands)
    named = set(re.findall(r"^\| `phonefit ([\w-]+)", README, flags=re.MULTILINE)) | {"models", "devices"}
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
