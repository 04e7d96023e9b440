"""Trials on a Ray cluster. This process chooses the trials and tells the study; each trial is a task on some machine.

A task asks for cores, and for the phones that the recipe measures on: `phone:SERIAL` is a resource of the machine that
the phone hangs on, so its trials run there. Workers need no way to the study. docs/scaling.md says how to set it up.
"""

import logging
import math
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from phonefit.device_bench.host_facts import usable_cores
from phonefit.models.record import write_atomically
from phonefit.pipeline.checks import TrialChecks
from phonefit.pipeline.errors import PhonefitError, RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.claims import Claim, Job, claim_trial, give_back, give_up_lost
from phonefit.pipeline.search.local import DEATHS
from phonefit.pipeline.search.ray_task import TOKEN, Answer, Order, Snapshot, run_order
from phonefit.pipeline.search.shipping import known_keys, unpack
from phonefit.pipeline.search.trials import Ended, Failures, SearchStoppedError, finish

if TYPE_CHECKING:
    from optuna import Study

logger = logging.getLogger(__name__)

TRIALS_PER_DEVICE = 2
"""Tasks that share a phone: one trains while another measures. A lock on the phone's machine lets one measure."""
_FOUND_BY_RAY = ("CPU", "GPU")
_PATIENCE = 10.0  # seconds between two looks at the machines, while no trial ends


def needs_of(recipe: Recipe) -> dict[str, float]:
    """What one trial takes of a machine: resource of Ray -> amount.

    Times on device `host` can only be compared between machines of one kind: those that offer `host`, however much.
    """
    needs: dict[str, float] = {"CPU": recipe.threads}
    if recipe.train_on == "cuda":
        needs["GPU"] = 1
    for name in recipe.bench.devices:
        kind, _, serial = name.partition(":")
        if kind in ("adb", "app"):
            needs[f"phone:{serial}" if serial else "phone"] = 1 / TRIALS_PER_DEVICE
        elif kind == "host":
            needs["host"] = 0.001
    return needs


def options_of(needs: Mapping[str, float]) -> dict[str, Any]:
    """The needs as options of a task: Ray takes its own two resources by name, and no others so."""
    own = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
    return own | {"resources": {name: amount for name, amount in needs.items() if name not in _FOUND_BY_RAY}}


def capacity(machines: Sequence[Mapping[str, Any]], needs: Mapping[str, float]) -> int:
    """Trials that can run at the same time on these machines, as `ray.nodes()` tells them."""
    alive = [machine["Resources"] for machine in machines if machine["Alive"]]
    return sum(min(math.floor(offer.get(name, 0) / amount) for name, amount in needs.items()) for offer in alive)


def run_on_ray(
    study: "Study",
    job: Job,
    runs: Path,
    own: Callable[[Recipe], TrialResult] | None,
    surroundings: Mapping[str, JsonValue],
    address: str | None,
    ended: Ended,
) -> None:
    """Let a cluster work until the study has all that it should have.

    A trial whose worker or machine is lost is tried again, and said so.

    Args:
        own: one trial, where it is not `run_trial`; can be sent to other processes.
        surroundings: what has to be the same on every machine.
        address: of a running cluster; None starts one on this machine.

    Raises:
        RecipeError: Ray is not installed, does not answer, or no machine has what a trial needs.
        SearchStoppedError: three trials in a row failed with the same message, trial after trial was lost, or the
            machines that have what a trial needs are gone.
        StoreError: a run folder or the study cannot be written or read.
    """
    needs, token = needs_of(job.recipe), uuid.uuid4().hex
    write_atomically(job.folder / TOKEN, token.encode())
    running: dict[Any, Claim] = {}
    failures, lost_in_a_row, most_places = Failures(), 0, 0
    with _connected(address, needs) as ray:
        _refuse_without_machine(ray.nodes(), needs)
        # A lost task is not run again by Ray: the study decides on that.
        task = ray.remote(run_order).options(**options_of(needs), max_retries=0)
        try:
            while True:
                places = capacity(ray.nodes(), needs)
                most_places = max(most_places, places)  # a machine takes all of its trials along when it is lost
                while len(running) < places and (claim := claim_trial(study, job)):
                    varied = apply_overrides(job.recipe, claim.values)
                    snapshot = Snapshot(study.get_trials(deepcopy=False), study.directions)
                    number, known = claim.trial.number, known_keys(runs)
                    order = Order(number, varied, job.recipe, runs.resolve(), own, surroundings, snapshot, known, token)
                    running[task.remote(order)] = claim
                if not running and places:
                    return
                done, _ = ray.wait([*running], timeout=_PATIENCE) if running else ([], [])
                if not done and not places:
                    raise SearchStoppedError(
                        f"the search stopped: no machine is left that has {_in_words(needs)}; "
                        "when one is back, the same command goes on"
                    )
                for ref in done:
                    claim = running[ref]
                    number = claim.trial.number
                    answer = _answer(ray, ref, number)
                    del running[ref]
                    if answer is None:
                        lost_in_a_row += 1
                        give_up_lost(study, job, number)
                        claim.release()
                        if lost_in_a_row >= DEATHS * most_places:
                            raise SearchStoppedError(f"the search stopped: {lost_in_a_row} trials in a row were lost")
                        continue
                    lost_in_a_row = 0
                    failure = _finish(study, claim, job, runs, answer)
                    ended(number, failure)
                    failures.note(study, job, number, failure)
        finally:
            for ref, claim in running.items():
                ray.cancel(ref, force=True)
                give_back(study, claim.trial)
                claim.release()


def _answer(ray: Any, ref: Any, number: int) -> Answer | None:
    """What a task gave; None when it was lost with its process or machine."""
    try:
        answer: Answer = ray.get(ref)
    except ray.exceptions.RayTaskError:  # a bug, of which the traceback is wanted
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        logger.warning("trial %d was lost, and is tried again (%s): %s", number, type(error).__name__, reason)
        return None
    return answer


def _finish(study: "Study", claim: Claim, job: Job, runs: Path, answer: Answer) -> PhonefitError | None:
    """Take over what the other machine gave, and tell the study."""

    def taken_over(recipe: Recipe, checks: TrialChecks) -> TrialResult:
        unpack(runs, answer.packed or {})
        for name, value in (answer.attributes or {}).items():
            claim.trial.set_user_attr(name, value)
        for name, excess in (answer.constraints or {}).items():
            claim.trial.set_constraint(name, excess)
        for step, value in (answer.reports or {}).items():
            claim.trial.report(value, step)
        return answer.outcome()

    return finish(study, claim, job, taken_over)


def _refuse_without_machine(machines: Sequence[Mapping[str, Any]], needs: Mapping[str, float]) -> None:
    if capacity(machines, needs):
        return
    offers = [
        f"{machine['NodeManagerHostname']} ({_in_words(machine['Resources'])})"
        for machine in machines
        if machine["Alive"]
    ]
    raise RecipeError(
        f"no machine of the cluster has what a trial needs: {_in_words(needs)}. There are: {'; '.join(offers)}. "
        "Say what hangs on a machine when Ray is started there: ray start … --resources='{\"phone:SERIAL\": 1}'"
    )


def _in_words(resources: Mapping[str, float]) -> str:
    told = {name: amount for name, amount in resources.items() if "memory" not in name and not name.startswith("node:")}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(told.items()))


@contextmanager
def _connected(address: str | None, needs: Mapping[str, float]) -> Iterator[Any]:
    """Ray's module, connected; a cluster that was started for this is stopped again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    try:
        import ray
    except ImportError:
        raise RecipeError("Ray is not installed; install it with: pip install 'phonefit[ray]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            others = {name: 1.0 for name in needs if name not in _FOUND_BY_RAY}
            cores = usable_cores()
            ray.init("local", num_cpus=cores, resources=others, include_dashboard=False, **quiet)
        else:
            host, _, port = address.rpartition(":")
            if port.isdigit() and "/" not in host:  # or Ray would try for minutes, and then end the process
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(f"Ray at {address or 'this machine'} does not answer: {reason}; see `ray status`") from None
    try:
        yield ray
    finally:
        ray.shutdown()
