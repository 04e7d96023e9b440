"""Reading and writing weights: safetensors, weights-only .pt and .h5 files, never a pickle that runs code."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, from_numpy, load, nn

from phonefit.models import tfjs_weights
from phonefit.models.decoding import Decoding, EmbeddingDecoding, RegressionDecoding
from phonefit.models.errors import FileFormatError, ModelError, first_line
from phonefit.models.record import write_atomically
from phonefit.models.registry import MODELS, model_spec
from phonefit.models.spec import Architecture

HEAD = "head"  # the module of every registered family that belongs to the task


def save_safetensors(path: Path, network: nn.Module) -> None:
    """Write the state dict in a fixed order; equal weights give equal bytes."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(network.state_dict().items())}
    write_atomically(path, save(state))


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FileFormatError: it is not one.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path}: not a readable safetensors file ({error})") from None


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Read a person's weights: .safetensors, a .pt/.pth that holds tensors only, a .h5 of Keras, or
    the manifest of TensorFlow.js weights.

    A .pt file may hold the state dict itself or one under "state_dict" or "model". Names in a .h5 file are paths.

    Raises:
        FileFormatError: the file is missing, holds pickled code, or holds no tensors.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; give the path of a .safetensors or weights-only .pt file")
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    if path.suffix == ".h5":
        return _load_h5(path)
    if path.name.endswith(tfjs_weights.ENDING):
        return tfjs_weights.load_tfjs(path)
    try:
        content = load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # torch raises whatever the broken bytes lead to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path}: not a weights-only file: it could run code when read, so it is refused ({reason}). "
            "Save model.state_dict() with safetensors.torch.save_file or torch.save and give that file"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise FileFormatError(f"{path}: holds no tensors by name; save model.state_dict()")
    return tensors


def _load_h5(path: Path) -> dict[str, Tensor]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise FileFormatError(f"{path}: reading .h5 files needs h5py; pip install h5py") from None
    found: dict[str, Tensor] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = from_numpy(item[()])

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
        raise FileFormatError(f"{path}: not a readable HDF5 file ({first_line(error)})") from None
    return found


def initialise(
    network: nn.Module,
    architecture: Architecture,
    weights: str,
    labels: Sequence[str] = (),
    decoding: Decoding | None = None,
) -> str:
    """Load what a new network starts from: "random", "pretrained" (packaged weights), the path of a weights file, or
    the folder of a checkpoint.

    A head of another size than the weights' starts anew. From a checkpoint the head keeps what it knows of each label
    that is among `labels`, the network's own. Pretrained weights also go into a network of another depth or
    width, as far as layers keep their shape; a person's own file must fit in all but the head. A head that gives
    a number, pretrained or a checkpoint's, is put on the scale of `decoding`, how the task reads the network's outputs.

    Returns:
        One sentence on what was loaded.

    Raises:
        UnknownNameError: the family is not registered.
        ModelError: no packaged weights for this model, or weights that do not fit.
        FileFormatError: the file cannot be read safely.
    """
    if weights == "random":
        return "random weights: trained from scratch"
    if weights == "pretrained":
        return _load_pretrained(network, architecture, decoding)
    if Path(weights).is_dir():
        return _load_checkpoint(network, architecture, Path(weights), labels, decoding)
    state = load_weights_file(Path(weights))
    if architecture.detector is not None:  # what is known of the features, whatever head the file has
        return _matching_sentence(network, state, Path(weights).name)
    replaced = load_adapted(network, state, weights, None if architecture.family is None else HEAD)
    # the name alone: the sentence is kept in the checkpoint, which must not depend on where the file lay
    return _sentence(network, set(network.state_dict()) - set(replaced), Path(weights).name, bool(replaced))


def _load_checkpoint(
    network: nn.Module, architecture: Architecture, folder: Path, labels: Sequence[str], decoding: Decoding | None
) -> str:
    from phonefit.models.checkpoint import Checkpoint  # it imports this module

    checkpoint = Checkpoint(folder)
    if checkpoint.info.modules:
        raise ModelError(f"{folder}: a compressed network cannot start a new one; give a fine-tuned checkpoint")
    known = {label: row for row, label in enumerate(checkpoint.info.labels)}
    old = checkpoint.load()
    layer, before, own = last_layer(network), old.state_dict(), network.state_dict()
    same_shapes = {name: own[name].shape for name in own} == {name: before[name].shape for name in before}
    whole = tuple(labels) == checkpoint.info.labels or isinstance(checkpoint.info.decoding, EmbeddingDecoding)
    if same_shapes and whole:  # an embedding's outputs are not its labels: they serve others as well
        read = checkpoint.info.decoding
        if layer and _is_number(read) and _is_number(decoding):
            before |= _rescaled(before, layer, read, decoding)
        load_strictly(network, before, str(folder))
        return f"all from a checkpoint of {architecture.family or architecture.factory}"
    state = {name: tensor for name, tensor in before.items() if not name.startswith(f"{layer}.")}
    kept = {row: known[label] for row, label in enumerate(labels) if label in known}
    for part in ("weight", "bias"):
        name = f"{layer}.{part}"
        if name in own and name in before and own[name].shape[1:] == before[name].shape[1:]:
            state[name] = own[name].clone()
            if len(own[name]) == len(labels):  # one output for each label
                state[name][list(kept)] = before[name][list(kept.values())]
    load_strictly(network, state, str(folder))
    shown = f"{len(kept)} of the {len(labels)} labels" if kept else "none of the labels"
    return f"from a checkpoint of {architecture.family or architecture.factory} that knew {shown}; the others are new"


def last_layer(network: nn.Module) -> str:
    """Name of the last linear layer or convolution, which gives the outputs; "" where there is none."""
    layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return layers[-1] if layers else ""


def _load_pretrained(network: nn.Module, architecture: Architecture, decoding: Decoding | None) -> str:
    spec = None if architecture.family is None else model_spec(architecture.family)
    if spec is None or spec.pretrained is None:
        packaged = ", ".join(name for name, known in MODELS.items() if known.pretrained is not None)
        raise ModelError(
            f"no packaged weights for {architecture.factory or architecture.family}; packaged: {packaged}. Give the "
            "path of a .safetensors or weights-only .pt file as weights, or use random"
        )
    origin = f"{spec.pretrained.package} ({spec.pretrained.published})"
    state = spec.pretrained.rename(load_weights_file(spec.pretrained.locate()))
    if spec.pretrained.number:
        state = _number_on_scale(network, state, decoding)
    if architecture.depth == 1 and architecture.width == 1 and architecture.detector is None:
        replaced = load_adapted(network, state, origin, HEAD)
        return _sentence(network, set(network.state_dict()) - set(replaced), origin, bool(replaced))
    return _matching_sentence(network, state, origin)


def _number_on_scale(network: nn.Module, state: Mapping[str, Tensor], decoding: Decoding | None) -> dict[str, Tensor]:
    """Pretrained weights whose head gives a number, with a head whose output `decoding` reads as that number.

    Without the head, where `decoding` reads no number of one output, or where the network's head is another one.
    """
    own = network.state_dict()
    head = {name: tensor for name, tensor in state.items() if name.startswith(f"{HEAD}.")}
    rest = {name: tensor for name, tensor in state.items() if name not in head}
    same = {name: tensor.shape for name, tensor in head.items()} == {
        name: tensor.shape for name, tensor in own.items() if name.startswith(f"{HEAD}.")
    }
    if not same or not _is_number(decoding):
        return rest
    return rest | _rescaled(head, f"{HEAD}.output", RegressionDecoding(), decoding)


def _is_number(decoding: Decoding | None) -> TypeGuard[RegressionDecoding]:
    """Whether one output is read as a number by a scale and an offset."""
    return isinstance(decoding, RegressionDecoding) and decoding.reads == "output"


def _rescaled(
    state: Mapping[str, Tensor], layer: str, before: RegressionDecoding, after: RegressionDecoding
) -> dict[str, Tensor]:
    """Weight and bias of a last layer whose output `after` reads as the number that `before` read so far."""
    # number = scale x output + offset
    rescaled = {f"{layer}.weight": state[f"{layer}.weight"] * (before.scale / after.scale)}
    if (bias := state.get(f"{layer}.bias")) is not None:
        rescaled[f"{layer}.bias"] = (bias * before.scale + before.offset - after.offset) / after.scale
    return rescaled


def _matching_sentence(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> str:
    loaded = load_matching(network, state)
    return _sentence(network, loaded, origin, not any(name.startswith(f"{HEAD}.") for name in loaded))


def _sentence(network: nn.Module, loaded: Collection[str], origin: str, new_head: bool) -> str:
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in loaded) / max(1, sum(sizes.values()))
    sentence = f"{share:.0%} of the parameters from {origin}"
    if new_head:
        sentence += ", the head is new"
    return sentence if share >= 0.5 else sentence + "; less than half fits, so this is trained from scratch"


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor; all names and shapes must match.

    Raises:
        ModelError: with the first names that do not match.
    """
    problems = _mismatches(network, state)
    if problems:
        raise ModelError(_explain(origin, problems))
    network.load_state_dict(dict(state))


def load_adapted(
    network: nn.Module, state: Mapping[str, Tensor], origin: str, head: str | None = None
) -> tuple[str, ...]:
    """Load weights into a network with another head.

    Everything must match but the module `head` (by default the last layer with weights). Where anything in the head
    differs, all of it is left as initialised: half a head is worth nothing.

    Returns:
        Names of the network's tensors that were left as initialised.

    Raises:
        ModelError: anything else does not match.
    """
    if head is None:
        head = last_layer(network)
    problems = _mismatches(network, state)
    inside = [name for name in problems if name.startswith(f"{head}.")]
    rest = {name: problem for name, problem in problems.items() if name not in inside}
    if rest:
        raise ModelError(_explain(origin, rest))
    own = network.state_dict()
    replaced = tuple(name for name in own if name.startswith(f"{head}.")) if inside else ()
    network.load_state_dict({name: state[name] for name in own if name not in replaced}, strict=False)
    return replaced


def load_matching(network: nn.Module, state: Mapping[str, Tensor]) -> frozenset[str]:
    """Load the tensors whose name and shape match: pretrained weights into a network of another depth or width.

    Returns:
        Names of the tensors that were loaded.
    """
    problems = _mismatches(network, state)
    matching = {name: tensor for name, tensor in state.items() if name not in problems}
    network.load_state_dict(matching, strict=False)
    return frozenset(matching)


def _mismatches(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    own = network.state_dict()
    problems = dict.fromkeys(own.keys() - state.keys(), "missing from the file")
    problems |= dict.fromkeys(state.keys() - own.keys(), "not in the model")
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            problems[name] = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
    return dict(sorted(problems.items()))


def _explain(origin: str, problems: Mapping[str, str]) -> str:
    examples = {problem[0]: (name, problem) for name, problem in reversed(list(problems.items()))}
    chosen = [*examples.values(), *problems.items()]  # one of each kind first
    shown = "; ".join(f"{name}: {problem}" for name, problem in list(dict(chosen).items())[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{origin}: weights do not fit the model: {shown}{more}. Check the model's name, depth and width"
