"""What the bench was measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from pipeline.runtime.machine import usable_cores


def machine_facts(device: str) -> dict[str, Any]:
    """Processor, cores, versions, and the load of the last minute, which is that of other work.

    Args:
        device: Where the student runs.
    """
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    """The processor's name if the system gives it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
