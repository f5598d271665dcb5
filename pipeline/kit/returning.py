"""The files that are copied back from a GPU machine: weights and training state, within a limit.

Matrices are rounded to bfloat16. All other tensors (biases, norms, statistics, counters) stay as
they are. So a returned weight differs from the trained one by at most 0.4 percent. Scores are
measured with the rounded weights. The averaged weights of a state are those of the weights file, so
they are left out of the state.
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
"""Greatest size of log and score."""
_AVERAGE = "average/"
_NAME_BYTES = 160  # of one tensor in the header of a file


class ReturnError(ValueError):
    """Files cannot be returned, or returned files are damaged; the message says what to do."""


def compact(data: bytes) -> bytes:
    """Round the matrices of a safetensors file to bfloat16; metadata are kept."""
    tensors = {name: _rounded(value) for name, value in load(data).items()}
    return save(tensors, metadata=file_metadata(data))


def expand(data: bytes) -> bytes:
    """Convert the bfloat16 matrices of a safetensors file to float32; `compact` reverses this."""
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
    """Write the files to return, in pieces; for None the earlier file stays.

    Args:
        folder: folder whose files are copied back.
        weights: a weights file, made by `compact`.
        state: state of the training that made the weights, of `Trainer.save`.
    """
    if weights is not None:
        write_pieces(folder, WEIGHTS, weights, FILE_BYTES)
    if state is not None:
        kept = {n: _rounded(t) for n, t in load(state).items() if not n.startswith(_AVERAGE)}
        data = save(kept, metadata=file_metadata(state))
        write_pieces(folder, STATE, data, FILE_BYTES)


def read_back(folder: str | Path) -> tuple[bytes, bytes]:
    """Read weights and training state in float32, for `Tracker.load` and `Trainer.resume`.

    Raises:
        ReturnError: the last piece is missing, or a piece is damaged.
        PieceError: another piece is missing.
    """
    files = {}
    for name in (WEIGHTS, STATE):
        files[name] = read_pieces(folder, name)
        try:
            load(files[name])
        except (SafetensorError, ValueError) as error:
            raise ReturnError(
                f"{folder}: the pieces of {name} do not make a file ({error}); copy all files from "
                "the GPU machine again"
            ) from error
    weights = expand(files[WEIGHTS])
    tensors = {name: _full(value) for name, value in load(files[STATE]).items()}
    tensors |= {f"{_AVERAGE}{name}": value for name, value in load(weights).items()}
    return weights, save(tensors, metadata=file_metadata(files[STATE]))


def check_size(trainer: Trainer) -> None:
    """Check that weights and training state fit into the limit for returned files.

    Raises:
        ReturnError: they do not fit; names their size and the limit.
    """
    weights = list(trainer.tracker.state_dict().values())
    moments = []
    for group in trainer.optimizer.param_groups:
        moments += group["params"] * (1 if group["muon"] else 2)
    others = list(trainer.objective.state_dict().values())
    # Current and averaged weights, parameters of the objective, and the optimizer's state.
    total = sum(map(_size, [*weights, *weights, *others, *moments])) + LOG_BYTES
    if total > ALL_BYTES:
        raise ReturnError(
            f"weights and training state have {total / 1e6:.0f} MB in bfloat16, but at most "
            f"{ALL_BYTES / 1e6:.0f} MB can be returned; train a smaller size, or fewer parts of it "
            "(STAGE.learn=, STAGE.training.frozen_stages=)"
        )


def _is_matrix(value: Tensor) -> bool:
    return value.ndim > 1 and value.is_floating_point()


def _rounded(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16) if _is_matrix(value) else value


def _full(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.bfloat16 else value


def _size(value: Tensor) -> int:
    return value.numel() * (2 if _is_matrix(value) else value.element_size()) + _NAME_BYTES
