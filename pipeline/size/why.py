"""Explains why one version of a file is larger than another. Pure: two anatomies in, reasons out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from phonefit.models.record import Frozen
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.size.match import Matched, matched
from phonefit.pipeline.size.parts import Anatomy, Part

Cause = Literal[
    "stayed float",
    "duplicated constant",
    "unshared tensor",
    "new tensor",
    "gone tensor",
    "grown tensor",
    "shrunk tensor",
    "other values",
    "renamed",
    "scales",
    "casts",
    "left the delegate",
    "new operator",
    "gone operator",
    "delegate",
    "graph",
    "names",
    "metadata",
    "padding",
    "other",
]

_FLOATS = ("float64", "float32", "float16", "bfloat16")
CASTS = (
    "QUANTIZE", "DEQUANTIZE", "CAST", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Convert",
    "quantized_decomposed::quantize_per_tensor", "quantized_decomposed::dequantize_per_tensor",
    "quantized_decomposed::quantize_per_channel", "quantized_decomposed::dequantize_per_channel",
    "quantized_decomposed::choose_qparams", "dim_order_ops::_to_dim_order_copy",
)  # fmt: skip
_APART = ("tensor", "delegate", "entry")
# Growth that comes with other names, another order or another build, and so is no regression by itself.
_DRIFT = 256  # bytes, and
_DRIFT_SHARE = 0.001  # of the file
_ALIGNMENT = 64  # bytes of padding that a tensor may gain by lying elsewhere
_NAMES_DRIFT, _NAMES_SHARE, _NAMES_FACTOR = 4096, 0.01, 2

_LONGEST_NAME = 60


class Change(Frozen):
    """One difference.

    Attributes:
        name: of the tensor or operator; empty for what concerns the whole file.
        section: where the bytes lie, as in Part.
        bytes: new minus old.
        text: one line for a person.
        harmless: no regression by itself: not larger, or so little that other names or another order account for it.
    """

    cause: Cause
    name: str
    section: str
    bytes: int
    text: str
    harmless: bool = False


class Explanation(Frozen):
    """Why a file changed.

    Attributes:
        changes: regressions first, largest effect first; their bytes add up to new_bytes - old_bytes.
    """

    old_bytes: int
    new_bytes: int
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The changes that are not harmless."""
        return tuple(change for change in self.changes if not change.harmless)

    def by_cause(self) -> dict[Cause, int]:
        """Bytes of the regressions by cause, largest first."""
        total: Counter[Cause] = Counter()
        for change in self.regressions:
            total[change.cause] += change.bytes
        return dict(total.most_common())


def why(old: Anatomy, new: Anatomy) -> Explanation:
    """What differs between two versions of a file, matched by content first, then by name, shape and type.

    Raises:
        PhonefitError: they are of different formats.
    """
    if old.format != new.format:
        raise PhonefitError(
            f"a .{old.format} and a .{new.format} file have no parts to compare; compare like with like"
        )
    pairs = matched(_apart(old), _apart(new))
    changes = [
        *_pair_changes(pairs),
        *_new_changes(pairs, new),
        *_gone_changes(pairs),
        *_operator_changes(old, new),
        *_section_changes(old, new),
    ]
    changes.sort(key=_order)
    return Explanation(old_bytes=old.bytes, new_bytes=new.bytes, changes=tuple(changes))


def _order(change: Change) -> tuple[bool, bool, int, str, str]:
    """Largest effect first; descriptions grow because something else was added, so they come after it."""
    return change.harmless, change.cause == "graph", -abs(change.bytes), change.cause, change.name


def _apart(anatomy: Anatomy) -> list[Part]:
    """Parts that are compared one by one; scales, as many as channels, are compared as one."""
    return [part for part in anatomy.parts if part.kind in _APART and part.section != "scales"]


def _pair_changes(pairs: Matched) -> Iterator[Change]:
    renamed = other = 0
    for old, new in pairs.pairs:
        delta = new.bytes - old.bytes
        renamed += old.name != new.name
        other += not delta and old.digest != new.digest
        if not delta:
            continue
        types = f"{old.dtype} -> {new.dtype}" if old.dtype != new.dtype else new.dtype
        size = f"{old.bytes:,} -> {new.bytes:,} bytes"
        if delta > 0 and new.dtype in _FLOATS and old.dtype not in (*_FLOATS, ""):
            yield _change("stayed float", new, delta, f"{_called(new)} is {new.dtype} and was {old.dtype}: {size}")
        else:
            shapes = f"{_shape(old)} -> {_shape(new)}" if old.shape != new.shape else _shape(new)
            verb = "grew" if delta > 0 else "shrank"
            about = " ".join(part for part in (types, shapes) if part)
            cause: Cause = "grown tensor" if delta > 0 else "shrunk tensor"
            yield _change(cause, new, delta, f"{_called(new)} {verb}: {about + ', ' if about else ''}{size}")
    if renamed:
        yield _harmless("renamed", f"{renamed} tensors or entries have other names and the same content or shape")
    if other:
        yield _harmless("other values", f"{other} tensors or entries hold other values of the same size")


def _new_changes(pairs: Matched, new: Anatomy) -> Iterator[Change]:
    held = Counter(part.digest for part in _apart(new))
    twins = {after.digest: after for _, after in pairs.pairs}
    once_shared = {after.digest: before for before, after in pairs.pairs if before.users > max(after.users, 1)}
    shapes = {(after.shape, after.dtype): after for before, after in pairs.pairs if before.users > max(after.users, 1)}
    for part in pairs.new:
        twin = twins.get(part.digest)
        what = f"{_called(part)} {part.dtype} {_shape(part)}".strip()
        if part.digest in once_shared or (not twin and (part.shape, part.dtype) in shapes):
            shared = once_shared.get(part.digest) or shapes[part.shape, part.dtype]
            text = f"{what} was one tensor with {_called(shared)}, read from several places; now it is stored apart"
            yield _change("unshared tensor", part, part.bytes, text)
        elif held[part.digest] > 1:
            text = f"{what} is stored {held[part.digest]} times" + (f", also as {_called(twin)}" if twin else "")
            yield _change("duplicated constant", part, part.bytes, text)
        else:
            yield _change("new tensor", part, part.bytes, f"{what} is new: {part.bytes:,} bytes")


def _gone_changes(pairs: Matched) -> Iterator[Change]:
    for part in pairs.gone:
        yield _change("gone tensor", part, -part.bytes, f"{_called(part)} is gone: {part.bytes:,} bytes")


def _operator_changes(old: Anatomy, new: Anatomy) -> Iterator[Change]:
    before, after = _operator_bytes(old), _operator_bytes(new)
    left = _left_the_delegate(old, new)
    moved: dict[str, int] = {}
    for name in sorted({*before, *after, *old.operators, *new.operators}):
        delta = after[name] - before[name]
        count, was = new.operators.get(name, 0), old.operators.get(name, 0)
        text = f"{name}: {was} -> {count} operators"
        if name in CASTS and count > was:
            yield _operator("casts", name, delta, f"{text}; values are cast between float and integers more often")
        elif left and (count > was or name == "delegate call") and name not in CASTS:
            moved[name] = delta
        elif count > was:
            yield _operator("new operator", name, delta, text)
        elif count < was or delta:
            cause: Cause = "gone operator" if count < was else "graph"
            yield _operator(cause, name, delta, text, harmless=count < was or delta <= _drift(old))
    if left:
        kernels = ", ".join(f"{name} x {new.operators[name]}" for name in moved if name in new.operators)
        text = f"{left}; now called one by one: {kernels}" if kernels else left
        yield _operator("left the delegate", "", sum(moved.values()), text)
    for name in CASTS:
        count, was = new.delegated.get(name, 0), old.delegated.get(name, 0)
        if count > was:
            yield _operator("casts", name, 0, f"{name}: {was} -> {count} operators inside the delegate")


def _left_the_delegate(old: Anatomy, new: Anatomy) -> str:
    """What left, as text; empty where nothing did."""
    lost = Counter(old.delegated) - Counter(new.delegated)
    lost = Counter({name: count for name, count in lost.items() if name not in CASTS})
    calls = (new.partitions or 0) - (old.partitions or 0)
    outside = sum(new.operators.values()) > sum(old.operators.values())
    if not lost or not (outside or calls > 0):
        return ""
    names = ", ".join(f"{name} x {count}" for name, count in lost.most_common())
    return f"{names} left the delegate, which is called {new.partitions} times and was {old.partitions}"


def _operator_bytes(anatomy: Anatomy) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in anatomy.parts:
        if part.kind == "operator":
            total[part.name] += part.bytes
    return total


def _section_changes(old: Anatomy, new: Anatomy) -> Iterator[Change]:
    before, after = _together(old), _together(new)
    for section in sorted({*before, *after}):
        delta = after[section] - before[section]
        if not delta:
            continue
        cause = _SECTION_CAUSES.get(section, "delegate" if section.startswith("delegate:") else "other")
        text = f"{_SECTION_TEXTS.get(section, section)}: {before[section]:,} -> {after[section]:,} bytes"
        harmless = delta <= _allowed(section, before[section], after[section], old)
        yield Change(cause=cause, name="", section=section, bytes=delta, text=text, harmless=harmless)


_SECTION_CAUSES: Mapping[str, Cause] = {
    "names": "names",
    "metadata": "metadata",
    "padding": "padding",
    "scales": "scales",
    "graph": "graph",
    "headers": "graph",
}
_SECTION_TEXTS = {
    "names": "names of tensors and operators",
    "metadata": "metadata, which no runtime needs to compute",
    "padding": "padding",
    "scales": "quantisation scales and zero points",
    "graph": "descriptions of tensors and operators",
}


def _together(anatomy: Anatomy) -> Counter[str]:
    """Bytes by section of what is not compared part by part."""
    total: Counter[str] = Counter()
    for part in anatomy.parts:
        if part.kind != "operator" and (part.kind not in _APART or part.section == "scales"):
            total[part.section] += part.bytes
    return total


def _allowed(section: str, before: int, after: int, old: Anatomy) -> float:
    if section == "names":
        return max(_NAMES_DRIFT, _NAMES_SHARE * old.bytes) if after <= _NAMES_FACTOR * before + _DRIFT else _DRIFT
    if section == "padding":
        return max(_drift(old), _ALIGNMENT * len(_apart(old)))
    return _drift(old)


def _drift(old: Anatomy) -> float:
    return _DRIFT + _DRIFT_SHARE * old.bytes


def _called(part: Part) -> str:
    if len(part.name) > _LONGEST_NAME:
        return repr("…" + part.name[-_LONGEST_NAME:])  # names of tensors are paths; their end tells most
    return repr(part.name) if part.name else f"a {part.kind} without a name"


def _shape(part: Part) -> str:
    return "x".join(str(size) for size in part.shape)


def _change(cause: Cause, part: Part, delta: int, text: str) -> Change:
    return Change(cause=cause, name=part.name, section=part.section, bytes=delta, text=text, harmless=delta <= 0)


def _operator(cause: Cause, name: str, delta: int, text: str, harmless: bool = False) -> Change:
    return Change(cause=cause, name=name, section="graph", bytes=delta, text=text, harmless=harmless)


def _harmless(cause: Cause, text: str) -> Change:
    return Change(cause=cause, name="", section="", bytes=0, text=text, harmless=True)
