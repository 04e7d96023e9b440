"""Repeatable work with torch: seeds, threads, kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from phonefit.models.record import digest_of
from phonefit.pipeline.context import Context


def seed_of(context: Context, title: str) -> int:
    """Seed for one piece of work of a run: another title is another stream of random numbers. 60 bits."""
    return int(digest_of([context.seed, title])[:15], 16)


@contextmanager
def deterministic(context: Context, title: str) -> Iterator[None]:
    """Seed torch from the context's seed and `title`, pin its threads, use repeatable kernels; restores all."""
    options: Any = torch.utils.deterministic
    threads, algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = options.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed_of(context, title))
            torch.set_num_threads(context.threads)
            torch.use_deterministic_algorithms(True, warn_only=context.torch_device != "cpu")
            options.fill_uninitialized_memory = False  # a debugging aid that costs time
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(algorithms)
            options.fill_uninitialized_memory = fill
