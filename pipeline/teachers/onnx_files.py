"""Networks of other projects in ONNX files: identity, and inference in OpenVINO on the CPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from model.teach.teacher import TeacherError
from model.track.checkpoint import file_sha256
from pipeline.inference.openvino_core import openvino_core


def network_id(model: str, path: str) -> str:
    """Id of a teacher in a file, which depends on the content of the file.

    Args:
        model: `teacher.model`.
        path: the file.

    Raises:
        TeacherError: no such file.
    """
    if not Path(path).is_file():
        raise TeacherError(
            f"teacher.model={model}: {path or 'nothing'} is no file; give the network with "
            "teacher.pretrained=FILE.onnx"
        )
    return f"{model}/{file_sha256(path)[:12]}"


def read_network(model: str, path: str) -> Any:
    """The network in a file as `openvino.Model`.

    Raises:
        TeacherError: no such file, OpenVINO is not installed, or it cannot read the file.
    """
    network_id(model, path)
    require(model, "openvino")
    try:
        return openvino_core().read_model(path)
    except RuntimeError as error:
        raise TeacherError(
            f"teacher.model={model}: {path} cannot be read as ONNX ({error}); give another "
            "teacher.pretrained"
        ) from error


def require(model: str, package: str) -> None:
    """Refuse a teacher whose runtime is not installed.

    Raises:
        TeacherError: the package is missing.
    """
    if find_spec(package) is None:
        raise TeacherError(
            f"teacher.model={model} needs the package {package}; pip install {package}"
        )


def compiled(network: Any) -> Any:
    """A network of static shapes as an inference request on the CPU, with torch's threads.

    It computes in float32, because bfloat16 would give other features on other CPUs.
    """
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return openvino_core().compile_model(network, "CPU", options).create_infer_request()
