"""Projectors on disk, beside the weights they belong to and never in them."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from model.teach.distillation import DistillationConfig, Distiller
from model.teach.teacher import TeacherInfo
from model.track.checkpoint import CheckpointError

_KEY = "vsdmot_distiller"


def distiller_path(weights: str | Path) -> Path:
    """Where the projectors that belong to a weights file lie: beside it."""
    path = Path(weights)
    return path.with_name(f"{path.stem}.distiller.safetensors")


def distiller_bytes(distiller: Distiller) -> bytes:
    """Projectors, statistics and the teacher's name as one file."""
    block = {
        "config": asdict(distiller.config),
        "semantic_dim": distiller.semantic_dim,
        "teacher": asdict(distiller.teacher),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in distiller.state_dict().items()}
    return save(tensors, metadata={_KEY: json.dumps(block, sort_keys=True)})


def load_distiller(path: str | Path) -> Distiller:
    """Read a file that `distiller_bytes` made.

    Raises:
        CheckpointError: no such file, or not one of these.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such file; jobs.distill writes it beside the weights it makes"
        )
    try:
        with safe_open(path, framework="pt") as file:
            block = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        teacher = block["teacher"]
        distiller = Distiller(
            DistillationConfig(**block["config"]),
            block["semantic_dim"],
            TeacherInfo(teacher["id"], tuple(teacher["levels"]), teacher["pooled_dim"]),
        )
        distiller.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: holds no projectors that this code can read ({error}); distil again"
        ) from error
    return distiller.eval()
