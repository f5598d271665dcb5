"""`fit` on the workers of a Ray cluster. What a job gives and gets is told in `training.fit`.

Ray Train keeps the workers: it places them, and when one dies with its process or its node it
starts all of them again, as many as there is room for. What they need to go on lies in the
output, never in a process. Ray Data prepares batches in processes beside each worker.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import torch
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import GetTimeoutError, RayError
from ray.train import TrainingFailedError, report
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model.communicator import Communicator
from model.learn.training import Progress, TrainingError
from pipeline.runtime.ray_cluster import connected
from pipeline.runtime.ray_process_group import LocalTorchConfig, loopback_variables
from pipeline.runtime.settings import ClusterConfig
from pipeline.runtime.stop import ClusterError
from pipeline.training.batches import Stream, share, shares
from pipeline.training.config import WorkerConfig
from pipeline.training.progress_actor import ProgressMailbox
from pipeline.training.run_folder import RunFolder
from pipeline.training.work import Fit, Look, Score, work

_POLL_S = 0.3
_ROOM_WITHIN_S = 30.0  # nodes of a cluster that is just starting join one by one
_ROUND = 2048  # steps of one Ray Data execution, each a block of its own
_LAUNCH = "launch"


@dataclass(frozen=True, slots=True)
class _Orders:
    """What each worker is told: what to train, where, whom to tell, and this launch's name."""

    what: Fit
    worker: WorkerConfig
    mailbox: Any
    launch: str


def fit_on_ray(
    what: Fit,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    watch: Callable[[Progress], None],
    show: Callable[[int, Look], None] | None,
    scored: Callable[[Score], None] | None,
) -> None:
    """See `fit`."""
    least, most = cluster.least_and_most()
    for count in range(least, most + 1):
        try:
            share(0, what.config.batch, 0, count)
        except ValueError as error:
            raise TrainingError(f"training.batch: {error}") from error
    folder = RunFolder(what.output)
    launch = uuid.uuid4().hex
    folder.write(_LAUNCH, launch.encode())
    threads = max(1, worker.threads)
    ray_files = tempfile.mkdtemp(prefix="vsdmot-ray-train-")
    try:
        with _connected(cluster.address, most * (threads + worker.loaders)) as own:
            gpu = _gpus_wanted(worker)
            _check_room(least, threads, worker.loaders, gpu)
            mailbox = _start_mailbox()
            worker = replace(worker, threads=threads)
            orders = _Orders(replace(what, output=folder.uri), worker, mailbox, launch)
            trainer = TorchTrainer(
                _work,
                # As bytes: Ray Train's own actor need not import what a worker does.
                train_loop_config={"orders": cloudpickle.dumps(orders)},
                torch_config=_torch_config(gpu, ray_files if own else None),
                scaling_config=ScalingConfig(
                    num_workers=least if least == most else (least, most),
                    use_gpu=gpu,
                    resources_per_worker={"CPU": threads} | ({"GPU": 1} if gpu else {}),
                ),
                run_config=RunConfig(  # type: ignore[arg-type]
                    name=launch,
                    # Ray's own notes; what training needs to go on is in the output.
                    storage_path=ray_files,
                    failure_config=FailureConfig(max_failures=worker.max_failures),
                    logging_config=LoggingConfig(log_level="ERROR"),
                ),
            )
            with _delivered(mailbox, watch, show, scored):
                failed = _run(trainer)
            said: str = ray.get(mailbox.failure.remote())
            if said or failed is not None:
                raise TrainingError(said or _gave_up(failed, worker)) from failed
    finally:
        shutil.rmtree(ray_files, ignore_errors=True)


@contextmanager
def _connected(address: str, cpus: int) -> Iterator[bool]:
    """A cluster, started here if need be, with `cpus` for workers; whether it was.

    Raises:
        TrainingError: it cannot be started or reached.
    """
    with ExitStack() as stack:
        try:
            # Logical CPUs: one is spare for Ray's helpers. What workers print would go across
            # the bar; what goes wrong in them comes as an error.
            variables = {} if address else loopback_variables()
            cluster = connected(address, cpus + 1, variables, log_to_driver=False)
            own = stack.enter_context(cluster)
        except ClusterError as error:
            raise TrainingError(str(error)) from error
        yield own


def _torch_config(gpu: bool, folder: str | None) -> TorchConfig:
    """How workers form a process group; `folder` is one that they share on this machine."""
    backend = "nccl" if gpu else "gloo"
    return LocalTorchConfig(backend, folder=folder) if folder else TorchConfig(backend)


def _run(trainer: TorchTrainer) -> Exception | None:
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None


def _gave_up(failed: Exception | None, worker: WorkerConfig) -> str:
    return (
        f"the workers failed more than worker.max_failures={worker.max_failures} times; the "
        "last checkpoint is intact and the same command goes on from it. The last failure: "
        f"{failed}"
    )


def _work(settings: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    orders: _Orders = pickle.loads(settings["orders"])
    what, mailbox = orders.what, orders.mailbox
    if ray.get(mailbox.failure.remote()):
        return
    torch.set_num_threads(orders.worker.threads)
    communicator = Communicator()

    def batches_from(first_step: int) -> Iterator[Any]:
        c = what.config
        order = shares(c.batch, first_step, c.steps, communicator.rank, communicator.world)
        return prepared(what.stream, order, orders.worker.loaders)

    def saved(step: int) -> None:
        report({"step": step})  # a barrier: every worker comes here equally often

    last: Any = None

    def send(message: Any) -> None:
        nonlocal last
        last = mailbox.put.remote(pickle.dumps(message))

    try:
        _check_output(what.output, orders.launch)
        work(
            what,
            get_device(),
            communicator,
            batches_from,
            send,
            show=lambda step, look: send((step, look)),
            scored=send,
            saved=saved,
        )
    except TrainingError as error:
        ray.get(mailbox.fail.remote(str(error)))
    except ValueError as error:
        # Bad input on one worker: the others hang on it, so Ray Train has to end them.
        ray.get(mailbox.fail.remote(str(error)))
        raise
    finally:
        if last is not None:
            ray.get(last)  # this process ends next, and with it what is still on its way


def _check_output(output: str, launch: str) -> None:
    """Refuse an output that is a folder of the driver's machine alone."""
    found = RunFolder(output).read(_LAUNCH)
    if found is None or found.decode() != launch:
        raise ValueError(
            f"{output} on node {ray.util.get_node_ip_address()} is not the folder the run was "
            "started with; give an output that all nodes share, or a URL such as "
            "s3://bucket/prefix"
        )


def prepared(stream: Callable[[], Stream], order: Iterable[range], loaders: int) -> Iterator[Any]:
    """Batches of items made by Ray Data in processes of their own, in the order asked for.

    Args:
        stream: opens what is trained on.
        order: the items of each batch; may be endless.
        loaders: processes; 0 makes batches in this one.
    """
    if loaders == 0:
        opened = stream()
        for indices in order:
            yield opened.collate([opened.items[i] for i in indices])
        return
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a full buffer makes no progress either
    context.max_errored_blocks = 0
    context.max_consecutive_actor_init_deaths = 3
    order = iter(order)
    while rows := [{"first": r.start, "stop": r.stop} for r in islice(order, _ROUND)]:
        # A batch a block: a larger block would arrive whole or not at all.
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Preparer,
            fn_constructor_args=(stream,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=loaders, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
        )
        for table in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for value in table["batch"]:
                yield pickle.loads(value.as_buffer())


class _Preparer:
    """Makes batches in a Ray Data actor."""

    def __init__(self, stream: Callable[[], Stream]) -> None:
        torch.set_num_threads(1)
        self._stream = stream()

    def __call__(self, rows: pa.Table) -> pa.Table:
        made = [
            pickle.dumps(self._stream.collate([self._stream.items[i] for i in range(first, stop)]))
            for first, stop in zip(rows["first"].to_pylist(), rows["stop"].to_pylist(), strict=True)
        ]
        return pa.table({"batch": pa.array(made, pa.binary())})


def _gpus_wanted(worker: WorkerConfig) -> bool:
    if worker.device == "auto":
        return ray.cluster_resources().get("GPU", 0) >= 1
    return worker.device == "cuda"


def _check_room(least: int, threads: int, loaders: int, gpu: bool) -> None:
    """Wait a little for nodes that are still joining, then say what is missing."""
    asked = {"CPU": float(least * (threads + loaders))} | ({"GPU": float(least)} if gpu else {})
    deadline = time.monotonic() + _ROOM_WITHIN_S
    while True:
        there = ray.cluster_resources()
        missing = [kind for kind, amount in asked.items() if there.get(kind, 0) < amount]
        if not missing:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    nodes = [
        f"{node['NodeManagerAddress']}: "
        + ", ".join(f"{node['Resources'].get(kind, 0):g} {kind}" for kind in asked)
        for node in ray.nodes()
        if node["Alive"]
    ]
    wanted = ", ".join(f"{amount:g} {kind}" for kind, amount in asked.items())
    raise TrainingError(
        f"the cluster has no room for {least} workers of {threads} CPU"
        f"{' and 1 GPU' if gpu else ''}, each with {loaders} loaders of 1 CPU: they need {wanted}; "
        f"there is {'; '.join(nodes)}. Lower cluster.workers, worker.loaders or "
        "worker.threads, or add nodes"
    )


def _start_mailbox() -> Any:
    # On the driver's own node, so that it lives as long as there is somebody to read it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return (
        ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ProgressMailbox)
        .options(scheduling_strategy=here)
        .remote()
    )


@contextmanager
def _delivered(
    mailbox: Any,
    watch: Callable[[Progress], None],
    show: Callable[[int, Look], None] | None,
    scored: Callable[[Score], None] | None,
) -> Iterator[None]:
    """Hand on what workers tell, all of it by the time the block is left."""
    stop = threading.Event()
    failed: list[Exception] = []

    name, seen = "", 0

    def deliver() -> None:
        nonlocal name, seen
        name, before, messages = ray.get(mailbox.take.remote(name, seen), timeout=30)
        seen = before
        for message in map(pickle.loads, messages):
            seen += 1
            if isinstance(message, Progress):
                watch(message)
            elif isinstance(message, Score):
                if scored is not None:
                    scored(message)
            elif show is not None:
                show(*message)

    def poll() -> None:
        while not stop.wait(_POLL_S):
            try:
                deliver()
            except (GetTimeoutError, RayError):
                continue  # the bar stands still; the training does not depend on it
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=poll, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
    if failed:
        raise failed[0]
    deliver()
