"""Checkpoint: a PyTorch model on disk as model.json + weights.safetensors, never a pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from phonefit.models.artifact import Lineage
from phonefit.models.decoding import Decoding
from phonefit.models.errors import FileFormatError
from phonefit.models.module_table import ModuleEntry
from phonefit.models.quantisation import Quantisation
from phonefit.models.record import Record, digest_of, file_digest
from phonefit.models.spec import Architecture, Preprocess

if TYPE_CHECKING:
    from torch import nn

INFO_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


class CheckpointInfo(Record):
    """Content of model.json.

    Attributes:
        modules: module table: dotted path -> class and arguments, for each leaf module that differs from a fresh build.
        decoding: how the outputs are read; None for logits of classes.
        metrics: figures on the validation side, for example {"accuracy": 0.91}.
        lineage: oldest first.
    """

    schema_number: int = 1
    architecture: Architecture
    modules: Mapping[str, ModuleEntry] = {}
    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    quantisation: Quantisation | None = None
    decoding: Decoding | None = None
    metrics: Mapping[str, float] = {}
    lineage: tuple[Lineage, ...] = ()
    weights_sha256: str = ""

    @model_serializer(mode="wrap")
    def _decoding_where_there_is_one(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        if self.decoding is None:
            del content["decoding"]  # files and digests of classifications are those from before there were others
        return content


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Techniques read one and write another; none changes its input."""

    directory: Path

    @cached_property
    def info(self) -> CheckpointInfo:
        """Content of model.json."""
        return CheckpointInfo.load(self.directory / INFO_FILE)

    @cached_property
    def digest(self) -> str:
        """Digest of everything that makes this model: model.json, which holds the digest of the weights."""
        return digest_of(self.info.as_json())

    @property
    def weights_path(self) -> Path:
        """Path of the safetensors file."""
        return self.directory / WEIGHTS_FILE

    def load(self) -> "nn.Module":
        """Build the architecture, replace the leaves of the module table, load the weights strictly; in eval mode.

        Raises:
            FileFormatError: the weights are missing or are not the ones that model.json describes.
            ModelError: the architecture cannot be built or the weights do not fit.
        """
        from torch.random import fork_rng

        from phonefit.models.module_table import apply_module_table
        from phonefit.models.registry import build_network
        from phonefit.models.weights import load_safetensors, load_strictly

        info = self.info
        if not self.weights_path.is_file():
            raise FileFormatError(
                f"{self.weights_path}: missing; the checkpoint is incomplete, delete it and run again"
            )
        if file_digest(self.weights_path) != info.weights_sha256:
            raise FileFormatError(
                f"{self.weights_path}: does not match {INFO_FILE}; delete the checkpoint and run again"
            )
        with fork_rng(devices=[]):  # building draws random weights: loading must not move a person's random state
            network = build_network(info.architecture)
        apply_module_table(network, info.modules)
        load_strictly(network, load_safetensors(self.weights_path), str(self.weights_path))
        return network.eval()

    @classmethod
    def save(cls, directory: Path, network: "nn.Module", info: CheckpointInfo) -> Self:
        """Write `network` into `directory` (made if missing). The same network and info give the same bytes.

        `info.modules` and `info.weights_sha256` are computed here.
        """
        from torch.random import fork_rng

        from phonefit.models.module_table import module_table
        from phonefit.models.registry import build_network
        from phonefit.models.weights import save_safetensors

        directory.mkdir(parents=True, exist_ok=True)
        save_safetensors(directory / WEIGHTS_FILE, network)
        with fork_rng(devices=[]):
            table = module_table(network, build_network(info.architecture))
        complete = info.model_copy(update={"modules": table, "weights_sha256": file_digest(directory / WEIGHTS_FILE)})
        complete.save(directory / INFO_FILE)
        return cls(directory)
