"""What runs beside a job: Ray, MLflow, and the ports that their servers want."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.doctor.stores import existing, reach
from pipeline.storage.secrets import mask_secrets

_ANSWER_S = 10.0
_TASK_S = 60.0
_HOST_PORT = re.compile(r"(?:ray://)?([^/]+):(\d+)")
PORTS = {
    6379: "a head of Ray (ray start --head)",
    8265: "Ray's dashboard",
    10001: "clients of Ray (ray://)",
    5000: "MLflow (mlflow server, mlflow ui)",
}
"""Ports that servers beside a job take by default."""


def check_ray(config: DoctorConfig) -> Iterable[Finding]:
    """Start a cluster here, or join that of the settings, and run one task on it."""
    if config.cluster.workers == 0:
        yield ok("ray", "not used with cluster.workers=0")
        return
    import ray

    from pipeline.runtime.ray_cluster import connected
    from pipeline.runtime.stop import ClusterError

    address = config.cluster.address
    remedy = "correct cluster.address, or start the cluster: ray start --head"
    if given := _HOST_PORT.fullmatch(address):
        reach(given[1].strip("[]"), int(given[2]), remedy)
    try:
        with connected(address, 1, log_to_driver=False):
            answer = ray.get(ray.remote(_task).remote(), timeout=_TASK_S)
            resources = ray.cluster_resources()
            nodes = sum(node["Alive"] for node in ray.nodes())
    except ClusterError as error:
        yield problem("ray", str(error), remedy)
        return
    except ray.exceptions.GetTimeoutError:
        yield problem(
            "ray",
            f"a task did not run within {_TASK_S:g} s",
            "see with ray status whether machines have joined and have a free CPU",
        )
        return
    where = f"the cluster at {address}" if address else "a cluster started here"
    size = ""
    if address:
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        size = f"; it has {nodes} machines, {cpus} CPUs, {gpus} GPUs"
    yield ok("ray", f"Ray {ray.__version__}: {where} ran a task on {answer}{size}")


def _task() -> str:
    return socket.gethostname()


def check_mlflow(config: DoctorConfig) -> Iterable[Finding]:
    """Whether the log's server answers, or its file can be written."""
    if not config.mlflow.enabled:
        yield ok("mlflow", "off by mlflow.enabled=false")
        return
    uri = config.mlflow.uri
    if uri.startswith(("http://", "https://")):
        yield _server(uri)
    elif uri.startswith("sqlite:///"):
        yield _database(Path(uri.removeprefix("sqlite:///")))
    else:
        yield warning("mlflow", f"{mask_secrets(uri)} was not looked at", "a run tells if it fails")


def _server(uri: str) -> Finding:
    remedy = "start it, correct mlflow.uri, or give mlflow.enabled=false; a run goes on without it"
    shown = mask_secrets(uri)
    try:
        with urllib.request.urlopen(_health(uri), timeout=_ANSWER_S) as answer:
            words = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return warning("mlflow", f"{shown} answers {error.code} {error.reason}", remedy)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return warning("mlflow", f"{shown} does not answer: {mask_secrets(str(error))}", remedy)
    if words != "OK":
        return warning("mlflow", f"{shown} answers, but not as MLflow does: {words[:40]}", remedy)
    return ok("mlflow", f"the server at {shown} answers")


def _health(uri: str) -> urllib.request.Request:
    """A request for the health of a server, with the user and password in its address."""
    parts = urlsplit(uri)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health")
    if login:
        # urllib does not take them from an address, unlike the library that MLflow uses.
        word = base64.b64encode(unquote(login).encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    return request


def _database(path: Path) -> Finding:
    folder = existing(path.absolute().parent)
    target = path if path.exists() else folder
    if not os.access(target, os.W_OK):
        return warning(
            "mlflow",
            f"{target} cannot be written",
            "give mlflow.uri=sqlite:///FOLDER/mlflow.db; a run goes on without it",
        )
    return ok("mlflow", f"{path.absolute()} can be written")


def check_ports(config: DoctorConfig) -> Iterable[Finding]:
    """Which of the ports of servers beside a job are free here."""
    taken = {port: what for port, what in PORTS.items() if not is_free(port)}
    free = [str(port) for port in PORTS if port not in taken]
    for port, what in taken.items():
        yield warning(
            f"port {port}",
            f"taken by another program; it is for {what}",
            "a run needs none of them; for a server of your own stop that program, or choose "
            "another port",
        )
    if free:
        yield ok("ports", f"free: {', '.join(free)}")


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of this machine."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError:
            return False
    return True
