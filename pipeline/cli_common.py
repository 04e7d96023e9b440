"""What the commands share: errors as messages and exit codes, common options, printing."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from phonefit.models.errors import PhonefitError


class ExplainingGroup(TyperGroup):
    """Turns phonefit's errors and Ctrl-C into one message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PhonefitError as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: what was finished is kept, the same command goes on from there\n")
            raise SystemExit(130) from None


RecipeArgument = Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a YAML file.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Overrides, such as finetune.epochs=3")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder for results; finished stages in it are reused.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]


def terminal_progress() -> Any:
    """Progress on the terminal's standard error."""
    from phonefit.pipeline.progress import TerminalProgress, error_console

    return TerminalProgress(error_console())


def print_rich(renderable: Any) -> None:
    """Print a table or text of rich."""
    from rich.console import Console

    Console(highlight=False).print(renderable)


def print_json(value: object) -> None:
    """Print JSON for machines."""
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")
