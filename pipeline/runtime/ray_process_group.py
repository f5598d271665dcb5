"""The process group of a training's workers on a cluster that was started on this machine.

By default PyTorch's TCP store listens on every interface, and gloo and NCCL use the interface of
the host's name. Here a file replaces the TCP store, and gloo and NCCL use loopback.
"""

from __future__ import annotations

import socket
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


def loopback_variables() -> dict[str, str]:
    """Environment variables that make gloo and NCCL of a process listen on loopback."""
    name = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


@dataclass
class LocalTorchConfig(TorchConfig):
    """As `TorchConfig`, for workers on one machine.

    Attributes:
        folder: folder of this machine for the file of the store.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The class that starts the process group."""
        return _LocalBackend


class _LocalBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        # A new name for each start, because a file of dead workers would be read as valid.
        meet = f"file://{backend_config.folder}/meet-{uuid.uuid4().hex}"
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=meet,
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )
