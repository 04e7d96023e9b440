"""Progress on the terminal: bars with an estimate where there is one to draw on, a line a stage elsewhere."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from phonefit.pipeline.context import Advance


def error_console() -> Console:
    """A console on a duplicate of standard error, so that it still shows while a stage's output goes to the log."""
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", buffering=1)
    return Console(file=stream, highlight=False)


class TerminalProgress:
    """Draws on `console`: nested stages are drawn below each other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            speed_estimate_period=24 * 3600,  # a step can be a trial of many minutes
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._depth = 0

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Draw one stage; a line with its duration stays when it is done."""
        start = time.monotonic()
        if self._depth == 0 and self._console.is_terminal:
            self._bars.start()
        self._depth += 1
        row = self._bars.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            self._bars.advance(row, steps)
            if note:
                self._bars.update(row, note=note)

        last = ""
        try:
            yield advance
            last = f"[green]✓[/] {title}"
        except BaseException:
            last = f"[red]✗[/] {title}"
            raise
        finally:
            note = self._bars.tasks[self._bars.task_ids.index(row)].fields["note"]
            self._bars.remove_task(row)
            self._depth -= 1
            if self._depth == 0 and self._console.is_terminal:
                self._bars.stop()
            self._console.print(f"{last} [dim]{time.monotonic() - start:.1f} s {note}[/]")
