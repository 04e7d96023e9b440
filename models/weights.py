"""Reading and writing weights: safetensors and weights-only .pt files, never a pickle that runs code."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, load, nn

from phonefit.models.errors import FileFormatError, ModelError


def save_safetensors(path: Path, network: nn.Module) -> None:
    """Write the state dict in a fixed order; equal weights give equal bytes."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(network.state_dict().items())}
    save_file(state, path)


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
    """Read a person's weights: .safetensors, or a .pt/.pth that holds tensors only.

    A .pt file may hold the state dict itself or one under "state_dict" or "model".

    Raises:
        FileFormatError: the file is missing, holds pickled code, or holds no tensors.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; give the path of a .safetensors or weights-only .pt file")
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    try:
        content = load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path}: not a weights-only file: it could run code when read, so it is refused ({reason}). "
            "Save model.state_dict() with safetensors.torch.save_file or torch.save and give that file"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise FileFormatError(f"{path}: holds no tensors by name; save model.state_dict()")
    return tensors


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor; all names and shapes must match.

    Raises:
        ModelError: with the first names that do not match.
    """
    problems = _mismatches(network, state)
    if problems:
        raise ModelError(_explain(origin, problems))
    network.load_state_dict(dict(state))


def load_adapted(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Load a person's weights into a network with a new output layer.

    Everything must match but the last layer with weights, which is left as initialised where its shape differs.

    Returns:
        Names of the tensors that were left as initialised.

    Raises:
        ModelError: anything else does not match.
    """
    last = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1:]
    problems = _mismatches(network, state)
    replaced = tuple(name for name in problems if last and name.rpartition(".")[0] == last[0])
    rest = {name: problem for name, problem in problems.items() if name not in replaced}
    if rest:
        raise ModelError(_explain(origin, rest))
    network.load_state_dict({name: tensor for name, tensor in state.items() if name not in replaced}, strict=False)
    return replaced


def load_matching(network: nn.Module, state: Mapping[str, Tensor]) -> float:
    """Load the tensors whose name and shape match: pretrained weights into a network of another depth or width.

    Returns:
        Share of the network's parameters that were loaded, 0..1.
    """
    problems = _mismatches(network, state)
    matching = {name: tensor for name, tensor in state.items() if name not in problems}
    network.load_state_dict(matching, strict=False)
    parameters = dict(network.named_parameters())
    loaded = sum(tensor.numel() for name, tensor in parameters.items() if name in matching)
    return loaded / max(1, sum(tensor.numel() for tensor in parameters.values()))


def _mismatches(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    own = network.state_dict()
    problems = {name: "missing from the file" for name in own.keys() - state.keys()}
    problems |= {name: "not in the model" for name in state.keys() - own.keys()}
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            problems[name] = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
    return dict(sorted(problems.items()))


def _explain(origin: str, problems: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name}: {problem}" for name, problem in list(problems.items())[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{origin}: weights do not fit the model: {shown}{more}. Check the model's name, depth and width"
