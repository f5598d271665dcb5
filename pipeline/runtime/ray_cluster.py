"""The one way in which jobs start or join a Ray cluster: one of our own is on loopback alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants

from pipeline.runtime.stop import ClusterError

_START_ATTEMPTS = 3


@contextmanager
def connected(
    address: str | None,
    cpus: int,
    environment: Mapping[str, str] | None = None,
    log_to_driver: bool = True,
) -> Iterator[bool]:
    """A Ray cluster: the one already connected to, the one at `address`, or one of our own.

    Yields:
        Whether it was started here.

    Args:
        address: Of a cluster to join; None or empty starts one here.
        cpus: Logical CPUs of one that is started here.
        environment: Variables of its processes.
        log_to_driver: Whether what workers print appears here.

    Raises:
        ClusterError: It cannot be started or reached.
    """
    if ray.is_initialized():
        yield False
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # else notices of Ray's own start
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": log_to_driver}
    if environment:
        options["runtime_env"] = {"env_vars": dict(environment)}
    if not address:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    with nullcontext() if address else on_loopback():
        _start(address or "local", options)
        try:
            yield not address
        finally:
            ray.shutdown()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have a Ray that is started here listen on loopback alone.

    By default it listens on every address of the machine, and whoever reaches it can run code
    here. A loopback address that is given to `ray.init` is turned into an outer one, except where
    Ray is told that it is no part of a cluster, which is its default on macOS. The flag is no
    public setting; the release is pinned, and a test looks at the sockets.
    """
    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    flag, value = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(variable)
    os.environ[variable] = "0"  # for Ray's processes
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read the variable already
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = flag
        if value is None:
            del os.environ[variable]
        else:
            os.environ[variable] = value


def _start(address: str, options: Mapping[str, Any]) -> None:
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # Ray raises plain Exception when processes do not come up
            ray.shutdown()
            # It gives its processes half a minute, which a busy machine may not keep.
            if attempt == _START_ATTEMPTS:
                raise ClusterError(
                    f"Ray at {address} did not start: {error}; check that the address is right "
                    "and the machine not overloaded, or work without Ray by cluster.workers=0"
                ) from error
