"""Errors of the pipeline. The root, `PhonefitError`, lives in the bottom layer and is offered here too."""

from phonefit.models.errors import (
    DataError,
    FileFormatError,
    ModelError,
    PhonefitError,
    UnknownNameError,
)

__all__ = [
    "BudgetError",
    "ConversionError",
    "DataError",
    "DelegationError",
    "FileFormatError",
    "GateError",
    "ModelError",
    "ParityError",
    "PhonefitError",
    "RecipeError",
    "StoreError",
    "TrainingError",
    "TrialEndedError",
    "UnknownNameError",
]


class RecipeError(PhonefitError):
    """A recipe that cannot run; the message lists every problem at once."""


class StoreError(PhonefitError):
    """The run folder cannot be written or read."""


class TrainingError(PhonefitError):
    """Training that cannot go on: its loss is no longer a number, or the batch is too small for the network."""


class ConversionError(PhonefitError):
    """A checkpoint that a converter cannot realise."""


class ParityError(ConversionError):
    """A converted file that does not compute what its parent computes. A failed gate: exits with 1."""

    exit_code = 1


class DelegationError(ConversionError):
    """A converted file of which the fast backend takes too little. A failed gate: exits with 1."""

    exit_code = 1


class TrialEndedError(PhonefitError):
    """A check of the search ended a trial that could not matter; nothing failed.

    Attributes:
        check: what ended it.
    """

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(reason)
        self.check = check


class BudgetError(PhonefitError):
    """No file fits the budget. Exits with 1."""

    exit_code = 1


class GateError(PhonefitError):
    """A file that misses the limits of the size gate. Exits with 1."""

    exit_code = 1
