"""The state of a training in one safetensors file: tensors, optimizer, position."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 4
"""Version of the file. 4: matrices of hidden layers have the state of Muon."""
_INFERENCE = (
    "input_height",
    "input_width",
    "birth_threshold",
    "keep_threshold",
    "duplicate_iou",
    "miss_tolerance",
)
"""Settings of the model that are used only at inference; a state fits whatever they are."""
_KEY = "vsdmot-training"

Sections = Mapping[str, Mapping[str, Tensor]]


class StateError(ValueError):
    """The state cannot be resumed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """Steps, frames and time of a training so far.

    Attributes:
        step: optimizer steps done.
        frames: frames seen, over all workers.
        seconds: time of training, waiting for data included.
    """

    step: int = 0
    frames: int = 0
    seconds: float = 0.0


def pack_state(
    position: Position,
    model: Mapping[str, Any],
    sections: Sections,
    optimizer: torch.optim.Optimizer,
) -> bytes:
    """Serialize a state. Names are `section/tensor` and `optimizer/parameter/entry`.

    Args:
        position: steps, frames and time so far.
        model: settings of the model.
        sections: tensors by name, for each section by its name.
        optimizer: its state is saved too.
    """
    tensors = {
        f"{section}/{name}": value.detach().cpu().contiguous().clone()
        for section, state in sections.items()
        for name, value in state.items()
    }
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"optimizer/{index}/{key}"] = value.detach().cpu().contiguous()
    block = {"format": FORMAT, "model": dict(model), "position": asdict(position)}
    return save(tensors, metadata={_KEY: json.dumps(block)})


def unpack_state(
    data: bytes, model: Mapping[str, Any], like: Sections, optimizer: torch.optim.Optimizer
) -> tuple[Position, dict[str, dict[str, Tensor]]]:
    """Read a state of `pack_state`, and load the optimizer if everything fits.

    Args:
        data: the file.
        model: settings of the model of this training.
        like: sections of this training; those of the file must have the same names and shapes.
        optimizer: must have the same parameters in the same order.

    Returns:
        the position and the sections.

    Raises:
        StateError: the file is no training state, or has another format, model or shapes.
    """
    try:
        tensors = load(data)
        block = json.loads(_header(data).get("__metadata__", {}).get(_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise StateError(f"not a readable training state ({error}); give another output") from error
    if block.get("format") != FORMAT:
        raise StateError(
            f"a training state of format {block.get('format', 1)}, but this code reads {FORMAT}; "
            "train into another output, with start= its weights file"
        )
    _check_model(block["model"], json.loads(json.dumps(model)))
    sections = {name: _under(f"{name}/", tensors) for name in like}
    for section, wanted in like.items():
        _check_shapes(section, sections[section], wanted)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer/", tensors).items():
        index, key = name.split("/")
        entries.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, entry in entries.items():
        if number >= len(parameters) or entry["exp_avg"].shape != parameters[number].shape:
            raise StateError(
                "its optimizer trained other parameters; keep frozen_stages and learn, or train "
                "into another output, with start= its weights file"
            )
        for key in {"exp_avg", "exp_avg_sq"} & entry.keys():
            # Fused kernels need the memory format of the parameter.
            entry[key] = torch.empty_like(parameters[number]).copy_(entry[key])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return Position(**block["position"]), sections


def read_position(data: bytes) -> Position:
    """Read the position in a state.

    Raises:
        StateError: the file is no training state.
    """
    try:
        return Position(**json.loads(_header(data)["__metadata__"][_KEY])["position"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"not a readable training state ({error!r})") from error


def _check_model(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    different = [
        f"{key} is {there.get(key, 'missing')} in the state and {here.get(key, 'missing')} now"
        for key in sorted({*there, *here} - {*_INFERENCE})
        if there.get(key) != here.get(key)
    ]
    if different:
        raise StateError(f"of another model: {', '.join(different)}; give another output")


def _check_shapes(section: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    stored = {name: tuple(value.shape) for name, value in found.items()}
    current = {name: tuple(value.shape) for name, value in wanted.items()}
    names = sorted({*stored, *current})
    different = [name for name in names if stored.get(name) != current.get(name)]
    if different:
        name, owner = different[0], "objective" if section == "objective" else "model"
        raise StateError(
            f"of another {owner}: {len(different)} of its tensors do not fit; the first is {name}, "
            f"{stored.get(name, 'missing')} in the state and {current.get(name, 'missing')} now; "
            "give another output"
        )


def _header(data: bytes) -> dict[str, dict[str, str]]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + size])
    return header


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
