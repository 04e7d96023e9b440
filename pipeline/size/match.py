"""Which tensor of one file is which of another."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from phonefit.pipeline.size.parts import Part

# What makes two parts one, the surest first. Shapes are sorted: converters store one weight in different layouts.
_KEYS: tuple[Callable[[Part], Hashable], ...] = (
    lambda part: (part.digest, part.bytes, part.name),
    lambda part: (part.digest, part.bytes),
    lambda part: (part.name, sorted_shape(part), part.dtype),
    lambda part: (sorted_shape(part), part.dtype) if part.shape else None,
    lambda part: (part.name, sorted_shape(part)),
    lambda part: sorted_shape(part) if part.shape else None,
    lambda part: (part.name, part.section) if part.name else None,
)


@dataclass(frozen=True)
class Matched:
    """Pairs of old and new parts, and those without a partner, each in the order of its file."""

    pairs: tuple[tuple[Part, Part], ...]
    gone: tuple[Part, ...]
    new: tuple[Part, ...]


def sorted_shape(part: Part) -> tuple[int, ...]:
    """Sizes of a tensor without those of 1, in order of size."""
    return tuple(sorted(size for size in part.shape if size != 1))


def matched(old: Sequence[Part], new: Sequence[Part]) -> Matched:
    """Pair parts by content, then by name, shape and type; of equal ones, the first with the first.

    A copy of a content that the new file holds elsewhere has no partner, unless its name had one before.
    """
    left, right = list(old), list(new)
    pairs: list[tuple[Part, Part]] = []
    for number, key in enumerate(_KEYS):
        held = Counter(part.digest for _, part in pairs)
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for place, part in enumerate(left):
            waiting[key(part)].append(place)
        taken: set[int] = set()
        rest: list[Part] = []
        for part in right:
            partners = waiting.get(key(part)) if key(part) is not None else None
            copy = number in _BY_SHAPE_ONLY and held[part.digest]
            if partners and not copy:
                place = partners.pop(0)
                taken.add(place)
                pairs.append((left[place], part))
            else:
                rest.append(part)
        left, right = [part for place, part in enumerate(left) if place not in taken], rest
    return Matched(tuple(pairs), tuple(left), tuple(right))


_BY_SHAPE_ONLY = (3, 5)
