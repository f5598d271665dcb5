"""Start or join a Ray cluster. A cluster that is started here listens on loopback alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants

from pipeline.runtime.machine import variables_set
from pipeline.runtime.stop import ClusterError

_START_ATTEMPTS = 3


@contextmanager
def connected(
    address: str,
    cpus: int,
    environment: Mapping[str, str] | None = None,
    log_to_driver: bool = True,
) -> Iterator[bool]:
    """A Ray cluster: the connected one, the one at `address`, or a new one on this machine.

    Args:
        address: Address of a cluster to join; empty starts a new one.
        cpus: Logical CPUs of a new cluster.
        environment: Environment variables of its processes.
        log_to_driver: Whether the output of workers is printed here.

    Yields:
        Whether the cluster was started here.

    Raises:
        ClusterError: It cannot be started or reached.
    """
    if ray.is_initialized():
        yield False
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # hides the notices of Ray's start
    # Ray would report its use to its makers, over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": log_to_driver}
    if address:
        options["runtime_env"] = {"env_vars": dict(environment or {})}
    else:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    with nullcontext() if address else on_loopback():
        # Processes of a new cluster inherit it. As a runtime environment it would keep them from
        # taking the processes that Ray starts in advance.
        with nullcontext() if address else variables_set(environment or {}):
            _start(address or "local", options)
        try:
            yield not address
        finally:
            ray.shutdown()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Make a Ray cluster that is started in the body listen on loopback alone.

    By default Ray listens on all addresses of the machine, and everybody who reaches it can run
    code here. It replaces a loopback address given to `ray.init` by an external one, unless its
    flag for clusters is off, as it is by default on macOS. The flag is not a public setting, so
    the release of Ray is pinned and a test checks the sockets.
    """
    flag = ray_constants.ENABLE_RAY_CLUSTER
    # For this process, which has read the variable already.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with variables_set({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):  # for Ray's processes
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = flag


def _start(address: str, options: Mapping[str, Any]) -> None:
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # Ray raises plain Exception when processes do not come up
            ray.shutdown()
            # Ray waits half a minute for its processes, which is too short on a busy machine.
            if attempt == _START_ATTEMPTS:
                raise ClusterError(
                    f"Ray at {address} did not start: {error}; check that the address is right "
                    "and the machine is not overloaded, or work without Ray by cluster.workers=0"
                ) from error
