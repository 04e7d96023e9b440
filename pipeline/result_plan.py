"""What planned compression considered, built and measured: a part of the trial's result."""

from collections.abc import Mapping

from pydantic import JsonValue

from phonefit.models.record import Frozen


class PlanRow(Frozen):
    """One candidate.

    Attributes:
        loss: expected distance from the parent's outputs after recovery.
        figures: limit -> figure that was expected at the end of the planning.
        fits: whether it was expected to meet all limits.
    """

    name: str
    runtime: str
    loss: float
    multiply_adds: int
    figures: Mapping[str, float]
    fits: bool


class PlanTry(Frozen):
    """One plan that was built.

    Attributes:
        expected: limit -> figure, before it was built; `asked`: its costs were asked of the device untrained.
        measured: limit -> figure of its best file; empty when there was none.
        corrections: limit -> measured / expected.
        estimated: limit -> figure as scaled from other candidates, before its own was asked.
        missed: limits that were missed, in words; or why there is no file.
    """

    name: str
    runtime: str
    steps: tuple[Mapping[str, JsonValue], ...]
    loss: float
    expected: Mapping[str, float]
    estimated: Mapping[str, float] = {}
    asked: bool
    measured: Mapping[str, float] = {}
    corrections: Mapping[str, float] = {}
    missed: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether a file met all limits."""
        return bool(self.measured) and not self.missed


class PlanResult(Frozen):
    """How the steps of a planned compression were found.

    Attributes:
        limits: name -> limit.
        considered: number of candidates that were scored.
        unscored: number of networks of the grid that were not, as they could not have been better.
        candidates: the best of them.
        left_out: what could not be scored, with the reason.
        asked: number of files that were made and measured only to know their cost.
        tries: plans that were built, in order.
        chosen: index into `tries`: the plan that met the budget, or came nearest.
        steps: the concrete steps; as `compress` of a plain recipe they give the same files.
    """

    limits: Mapping[str, float]
    considered: int
    unscored: int = 0
    candidates: tuple[PlanRow, ...]
    left_out: tuple[str, ...] = ()
    asked: int
    tries: tuple[PlanTry, ...]
    chosen: int
    steps: tuple[Mapping[str, JsonValue], ...]

    @property
    def met(self) -> bool:
        """Whether the budget was met."""
        return self.tries[self.chosen].met
