"""The state of a training in one safetensors file: named sections of tensors, optimizer, step."""

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 2
"""Version of the file. 2: it also holds the objective's state."""
_KEY = "vsdmot-training"

Sections = Mapping[str, Mapping[str, Tensor]]


class StateError(ValueError):
    """A state that cannot be taken up; the message says why and what to do."""


def pack_state(step: int, sections: Sections, optimizer: torch.optim.Optimizer) -> bytes:
    """Serialize. Names are `section/tensor` and `optimizer/parameter/entry`."""
    tensors = {
        f"{section}/{name}": value.detach().cpu().contiguous().clone()
        for section, state in sections.items()
        for name, value in state.items()
    }
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"optimizer/{index}/{key}"] = value.detach().cpu().contiguous()
    block = {"format": FORMAT, "step": step}
    return save(tensors, metadata={_KEY: json.dumps(block)})


def unpack_state(
    data: bytes, like: Sections, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, dict[str, Tensor]]]:
    """Read what `pack_state` made; fills the optimizer, which is touched only if all fits.

    Args:
        data: the file.
        like: sections as they are here: the file's must have these names and shapes.
        optimizer: of the same parameters in the same order.

    Returns:
        steps done, and the sections.

    Raises:
        StateError: not such a file, of another format, or of other shapes.
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
    sections = {name: _under(f"{name}/", tensors) for name in like}
    for section, wanted in like.items():
        _check_shapes(section, sections[section], wanted)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer/", tensors).items():
        index, key = name.split("/")
        entries.setdefault(int(index), {})[key] = value
    sizes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    if any(i >= len(sizes) or e["exp_avg"].shape != sizes[i] for i, e in entries.items()):
        raise StateError(
            "its optimizer trained other parameters; keep frozen_stages, or start from its "
            "weights in another output"
        )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return int(block["step"]), sections


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
