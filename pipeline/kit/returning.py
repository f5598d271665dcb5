"""What comes back from a borrowed machine: weights and training state, small enough for its way.

Matrices come back in bfloat16, all else (biases, norms, statistics, counters) as it is. So a weight
that comes back differs from the one there by 0.4 % of itself at most; a score is one of weights
that were rounded so. The averaged weights of a state are those of the weights file, and are left
out of it.
"""

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.learn.training import Trainer
from pipeline.kit.pieces import read_pieces, write_pieces

WEIGHTS, STATE, LOG, SCORE = "weights.safetensors", "state.safetensors", "log.jsonl", "score.json"
FILE_BYTES = 16_000_000
ALL_BYTES = 64_000_000
LOG_BYTES = 3_000_000
"""Most that log and score take."""
_AVERAGE = "average/"
_NAME_BYTES = 160  # of a tensor in a file's header


class ReturnError(ValueError):
    """What cannot come back, or did not; the message says why and what to do."""


def compact(data: bytes) -> bytes:
    """A safetensors file with its matrices in bfloat16 and its metadata."""
    tensors = {name: _rounded(value) for name, value in load(data).items()}
    return save(tensors, metadata=file_metadata(data))


def expand(data: bytes) -> bytes:
    """A safetensors file with its matrices in float32; `compact` gives the same bytes back."""
    tensors = {name: _full(value) for name, value in load(data).items()}
    return save(tensors, metadata=file_metadata(data))


def file_metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    metadata: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    return metadata


def write_back(
    folder: str | Path, weights: bytes | None = None, state: bytes | None = None
) -> None:
    """Write what comes back, in pieces; None leaves what is there.

    Args:
        folder: what comes back of a machine.
        weights: the file of `compact`.
        state: of `Trainer.save`, of the training that made the weights.
    """
    if weights is not None:
        write_pieces(folder, WEIGHTS, weights, FILE_BYTES)
    if state is not None:
        kept = {n: _rounded(t) for n, t in load(state).items() if not n.startswith(_AVERAGE)}
        data = save(kept, metadata=file_metadata(state))
        write_pieces(folder, STATE, data, FILE_BYTES)


def read_back(folder: str | Path) -> tuple[bytes, bytes]:
    """Weights and training state in float32, as `Tracker.load` and `Trainer.resume` read them.

    Raises:
        ReturnError: pieces are missing or damaged.
        PieceError: pieces are missing.
    """
    files = {}
    for name in (WEIGHTS, STATE):
        files[name] = read_pieces(folder, name)
        try:
            load(files[name])
        except (SafetensorError, ValueError) as error:
            raise ReturnError(
                f"{folder}: the pieces of {name} do not make a file ({error}); copy all that came "
                "back again"
            ) from error
    weights = expand(files[WEIGHTS])
    tensors = {name: _full(value) for name, value in load(files[STATE]).items()}
    tensors |= {f"{_AVERAGE}{name}": value for name, value in load(weights).items()}
    return weights, save(tensors, metadata=file_metadata(files[STATE]))


def check_size(trainer: Trainer) -> None:
    """Refuse, before it is trained, what will be too large to come back.

    Raises:
        ReturnError: with how large it is.
    """
    weights = list(trainer.tracker.state_dict().values())
    moments = []
    for group in trainer.optimizer.param_groups:
        moments += group["params"] * (1 if group["muon"] else 2)
    others = list(trainer.objective.state_dict().values())
    # Live weights and average, and what the optimizer keeps.
    total = sum(map(_size, [*weights, *weights, *others, *moments])) + LOG_BYTES
    if total > ALL_BYTES:
        raise ReturnError(
            f"weights and training state come to {total / 1e6:.0f} MB in bfloat16, and "
            f"{ALL_BYTES / 1e6:.0f} MB can come back; train a smaller size, or fewer parts of it "
            "(learn=, training.frozen_stages=)"
        )


def _matrix(value: Tensor) -> bool:
    return value.ndim > 1 and value.is_floating_point()


def _rounded(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16) if _matrix(value) else value


def _full(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.bfloat16 else value


def _size(value: Tensor) -> int:
    return value.numel() * (2 if _matrix(value) else value.element_size()) + _NAME_BYTES
