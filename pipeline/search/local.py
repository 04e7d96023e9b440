"""Worker processes on this machine. Each works on the study by itself; this process watches them and shows how far
they are.

    RUNS/NAME/logs/worker-N.log   stages of the trials of worker N with their seconds, and what libraries print
"""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from phonefit.device_bench.host_facts import usable_cores
from phonefit.device_bench.parent import end_with
from phonefit.device_bench.turns import give_way, taking_turns
from phonefit.pipeline.context import Advance
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.claims import Job
from phonefit.pipeline.search.records import load_study, quiet_optuna
from phonefit.pipeline.search.storage import explain_storage_errors
from phonefit.pipeline.search.trials import Ended, SearchStoppedError, evaluation, work
from phonefit.pipeline.store import explain_disk_errors

logger = logging.getLogger(__name__)

DEATHS = 3
"""So many workers that die without a trial that ends in between stop the search."""
_PATIENCE = 30.0  # seconds from passing Ctrl-C on until a worker is killed: one that converts a file answers late


@dataclass(frozen=True)
class _Begun:
    trial: int


@dataclass(frozen=True)
class _Ended:
    trial: int
    failure: str | None


@dataclass(frozen=True)
class _Stopped:
    """Because of an error of which only this is needed here; not every error can be sent."""

    error: str
    exit_code: int


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    connection: Connection
    trial: int | None = None


def default_workers(recipe: Recipe) -> int:
    """As many as the cores that this process may use hold trials of the recipe's threads; at least one."""
    return max(1, usable_cores() // recipe.threads)


def run_workers(job: Job, runs: Path, own: Callable[[Recipe], TrialResult] | None, count: int, ended: Ended) -> None:
    """Let `count` processes work until the study has all that it should have.

    A worker that dies loses its trial, which is said, and another one takes its place.

    Args:
        own: one trial, where it is not `run_trial`; can be sent to other processes.
        ended: called in this process.

    Raises:
        SearchStoppedError: an error stopped a worker, or worker after worker died. The others are interrupted, and the
            points of their trials queued.
    """
    workers = [_start(number, job, runs, own) for number in range(1, count + 1)]
    deaths: list[int | None] = []
    try:
        while workers:
            for worker in _with_news(workers):
                try:
                    said: _Begun | _Ended | _Stopped = worker.connection.recv()
                except EOFError:
                    workers.remove(worker)
                    worker.process.join()
                    if worker.process.exitcode == 0:
                        continue
                    deaths.append(worker.trial)
                    _report(worker, job, deaths)
                    workers.append(_start(worker.number, job, runs, own))
                    continue
                if isinstance(said, _Stopped):
                    raise SearchStoppedError(said.error, said.exit_code)
                worker.trial = said.trial if isinstance(said, _Begun) else None
                if isinstance(said, _Ended):
                    deaths.clear()
                    ended(said.trial, PhonefitError(said.failure) if said.failure else None)
    finally:
        _stop(workers)


def _start(number: int, job: Job, runs: Path, own: Callable[[Recipe], TrialResult] | None) -> _Worker:
    processes = get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=(number, os.getpid(), job, runs, own, theirs))
    process.start()
    theirs.close()  # or its end would not be seen here
    return _Worker(number, process, ours)


def _with_news(workers: list[_Worker]) -> list[_Worker]:
    ready = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def _report(worker: _Worker, job: Job, deaths: list[int | None]) -> None:
    """Say that a worker died.

    Raises:
        SearchStoppedError: it was one too many.
    """
    code = worker.process.exitcode
    assert code is not None  # it was waited for
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    memory = "; the system does so when memory runs out" if code == -signal.SIGKILL else ""
    during = "outside a trial" if worker.trial is None else f"during trial {worker.trial}, which is tried again"
    log = log_of(job.folder, worker.number)
    if len(deaths) == DEATHS:
        raise SearchStoppedError(
            f"the search stopped: {DEATHS} workers in a row died, the last one {how} {during}{memory}. "
            f"Its log: {log}. Fewer workers need less memory (--workers); finished trials are kept"
        )
    logger.warning("worker %d %s %s%s; another one is started. Its log: %s", worker.number, how, during, memory, log)


def _stop(workers: list[_Worker]) -> None:
    """Interrupt workers, as Ctrl-C does: they queue the points of their trials."""
    for worker in workers:
        if worker.process.is_alive() and worker.process.pid is not None:
            os.kill(worker.process.pid, signal.SIGINT)
    until = time.monotonic() + _PATIENCE
    try:
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()  # its trial is then found to be lost by whoever goes on
            worker.process.join()


def log_of(folder: Path, number: int) -> Path:
    """The log of a worker."""
    return folder / "logs" / f"worker-{number}.log"


def _work(
    number: int,
    parent: int,
    job: Job,
    runs: Path,
    own: Callable[[Recipe], TrialResult] | None,
    connection: Connection,
) -> None:
    """What a worker process does."""
    os.setpgid(0, 0)  # a terminal sends Ctrl-C to the whole group; here the parent passes it on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the search began in the background
    end_with(parent)
    with captured_output(log_of(job.folder, number), f"worker {number}, process {os.getpid()}"):
        try:
            _work_on_study(job, runs, own, connection)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except PhonefitError as error:
            traceback.print_exc()
            connection.send(_Stopped(str(error), error.exit_code))


def _work_on_study(job: Job, runs: Path, own: Callable[[Recipe], TrialResult] | None, connection: Connection) -> None:
    evaluate = evaluation(own, runs, WorkerProgress())

    def begun(trial: int) -> None:
        _log(f"trial {trial}")
        connection.send(_Begun(trial))

    def ended(trial: int, failure: PhonefitError | None) -> None:
        _log(f"trial {trial} failed: {failure}" if failure else f"trial {trial} done")
        connection.send(_Ended(trial, str(failure) if failure else None))

    with quiet_optuna(), explain_storage_errors(job.place), explain_disk_errors(job.folder), taking_turns():
        work(load_study(job.recipe, job.place), job, evaluate, begun, ended)


class WorkerProgress:
    """A line in the log for each stage. Between their steps, a measurement of this machine may go first."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Yields a function that lets a measurement go first."""
        start = time.monotonic()

        def advance(steps: int = 1, note: str = "") -> None:
            give_way()

        give_way()
        yield advance
        _log(f"  {title}: {time.monotonic() - start:.1f} s")


def _log(line: str) -> None:
    sys.stdout.write(f"{line}\n")
