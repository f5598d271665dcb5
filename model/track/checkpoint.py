"""Weights on disk: safetensors whose header holds all that is needed to rebuild the model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from model.net.config import ModelConfig
from model.shipped import shipped

FORMAT = 4
"""Version of metadata and tensors. 4: `tf_` backbone, towers apart, a head for whole people."""
_KEY = "vsdmot"


class CheckpointError(ValueError):
    """A weights file that cannot be used; the message names the file, the reason, the remedy."""


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """Metadata of a weights file.

    Attributes:
        model: the model's config.
        training: data, steps, seed and settings it was trained with.
        teacher: name of the teacher it was distilled from, or "none".
        code_version: version of this package that wrote it.
        metrics: figures measured on it, by name.
        format: version of this block.
    """

    model: ModelConfig
    training: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = "none"
    code_version: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    format: int = FORMAT


def checkpoint_bytes(state: Mapping[str, Tensor], metadata: CheckpointMetadata) -> bytes:
    """Serialize weights and their metadata block."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # One key, because safetensors does not keep the order of several. Equal weights must give
    # equal bytes.
    block = {_KEY: json.dumps(asdict(metadata), sort_keys=True)}
    return save(tensors, metadata=block)


def save_tracker(path: str | Path, tracker: nn.Module, metadata: CheckpointMetadata) -> None:
    """Write a tracker's weights; a reader never finds a partial file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(checkpoint_bytes(tracker.state_dict(), metadata))
    partial.replace(path)


def read_metadata(path: str | Path) -> CheckpointMetadata:
    """Read the metadata block alone.

    Raises:
        CheckpointError: no such file, not safetensors, or not written by this project.
    """
    return read_checkpoint(path)[0]


def file_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pretrained_weights(name: str | Path) -> Path:
    """Return the file of weights that ship under a name, such as `nano`; a path stays a path.

    Raises:
        CheckpointError: it is neither; the message lists the names.
    """
    path = shipped(f"weights/vsdmot-{name}.safetensors")
    if path.is_file():
        return path
    if Path(name).is_file():
        return Path(name)
    found = shipped("weights").glob("vsdmot-*.safetensors")
    sizes = [file.stem.removeprefix("vsdmot-") for file in found if "." not in file.stem]
    raise CheckpointError(
        f"{name}: no such weights file, and no weights ship under this name; give a path, or one "
        f"of {', '.join(sorted(sizes)) or 'none here'}"
    )


def read_checkpoint(path: str | Path) -> tuple[CheckpointMetadata, dict[str, Tensor]]:
    """Read the metadata block and the tensors, on the CPU.

    Raises:
        CheckpointError: as `read_metadata`.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such weights file; give one with weights=PATH")
    try:
        with safe_open(path, framework="pt") as file:
            block = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); other formats are refused"
        ) from error
    if "model" not in block or "format" not in block:
        raise CheckpointError(f"{path}: has no VSD-MOT metadata; it is another project's file")
    if block["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: written in format {block['format']} with backbone "
            f"{block['model'].get('backbone', 'unknown')}, this code reads format {FORMAT}; "
            "use the weights that came with the code, or train them again"
        )
    try:
        block["model"] = ModelConfig.from_dict(block["model"])
        return CheckpointMetadata(**block), tensors
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata does not read ({error})") from error
