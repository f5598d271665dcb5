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
"""Settings of the model that training does not depend on; they may change between runs."""
_KEY = "vsdmot-training"

Sections = Mapping[str, Mapping[str, Tensor]]


class StateError(ValueError):
    """A state that cannot be resumed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training has come.

    Attributes:
        step: optimizer steps done.
        frames: frames seen, by all workers.
        seconds: of training, including waits for data.
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
    """Serialize. Names are `section/tensor` and `optimizer/parameter/entry`.

    Args:
        position: how far the training has come.
        model: the model's config.
        sections: tensors by name, by the name of their section.
        optimizer: whose state is kept.
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
    """Read what `pack_state` made, and fill the optimizer if everything fits.

    Args:
        data: the file.
        model: the config of the model here.
        like: sections of this training; the file's must have the same names and shapes.
        optimizer: of the same parameters in the same order.

    Returns:
        the position and the sections.

    Raises:
        StateError: not such a file, of another format, of another model, or of other shapes.
    """
    try:
        tensors = load(data)
        block = json.loads(_header(data).get("__metadata__", {}).get(_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise StateError(f"not a readable training state ({error}); use another output") from error
    if block.get("format") != FORMAT:
        raise StateError(
            f"a training state of format {block.get('format', 1)}, this code reads {FORMAT}; "
            "train in another output, starting from its weights"
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
                "its optimizer trained other parameters; keep frozen_stages, or start from its "
                "weights in another output"
            )
        for key in {"exp_avg", "exp_avg_sq"} & entry.keys():
            # In the parameter's own memory format, which fused kernels need.
            entry[key] = torch.empty_like(parameters[number]).copy_(entry[key])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return Position(**block["position"]), sections


def read_position(data: bytes) -> Position:
    """Return the position of the training with this state.

    Raises:
        StateError: not such a file.
    """
    try:
        return Position(**json.loads(_header(data)["__metadata__"][_KEY])["position"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"not a readable training state ({error!r})") from error


def _check_model(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    odd = [
        f"{key} is {there.get(key, 'missing')} there and {here.get(key, 'missing')} here"
        for key in sorted({*there, *here} - {*_INFERENCE})
        if there.get(key) != here.get(key)
    ]
    if odd:
        raise StateError(f"of another model: {', '.join(odd)}; use another output")


def _check_shapes(section: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    here = {name: tuple(value.shape) for name, value in wanted.items()}
    odd = [name for name in sorted({*shapes, *here}) if shapes.get(name) != here.get(name)]
    if odd:
        name, what = odd[0], "objective" if section == "objective" else "model"
        raise StateError(
            f"of another {what}: {len(odd)} of its tensors do not fit, the first is {name}, "
            f"{shapes.get(name, 'missing')} there and {here.get(name, 'missing')} here; "
            "use another output"
        )


def _header(data: bytes) -> dict[str, dict[str, str]]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + size])
    return header


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
