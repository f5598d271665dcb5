"""`fit` on the workers of a Ray cluster; `training.fit` describes its arguments.

Ray Train starts the workers. If a worker or its node dies, Ray Train starts all workers again, as
many as there is room for. They resume from the state in the output. Ray Data makes batches in
processes beside each worker.
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
from pipeline.training.progress_queue import ProgressQueue
from pipeline.training.run_folder import RunFolder
from pipeline.training.worker import Score, Snapshot, TrainingTask, train_on_worker

_POLL_S = 0.3
_ROOM_WITHIN_S = 30.0  # nodes of a starting cluster join one after the other
_ROUND = 2048  # steps of one Ray Data execution, one block per step
_LAUNCH = "launch"  # file in the output with the name of the launch


@dataclass(frozen=True, slots=True)
class _WorkerInput:
    """Input of each worker.

    Attributes:
        task: the training.
        worker: its resources.
        queue: actor handle of the `ProgressQueue`.
        launch: unique name of this start of the training.
    """

    task: TrainingTask
    worker: WorkerConfig
    queue: Any
    launch: str


def fit_on_ray(
    task: TrainingTask,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    on_progress: Callable[[Progress], None],
    on_snapshot: Callable[[int, Snapshot], None] | None,
    on_score: Callable[[Score], None] | None,
) -> None:
    """Train as `fit` describes."""
    least, most = cluster.least_and_most()
    for count in range(least, most + 1):
        try:
            for step in range(len(task.sizes)):
                share(step, task.sizes, 0, count)
        except ValueError as error:
            raise TrainingError(str(error)) from error
    folder = RunFolder(task.output)
    launch = uuid.uuid4().hex
    folder.write(_LAUNCH, launch.encode())
    threads = max(1, worker.threads)
    ray_files = tempfile.mkdtemp(prefix="vsdmot-ray-train-")
    try:
        with _connected(cluster.address, most * (threads + worker.loaders)) as own:
            gpu = _gpus_wanted(worker)
            _check_room(least, threads, worker.loaders, gpu)
            queue = _start_queue()
            worker = replace(worker, threads=threads)
            given = _WorkerInput(replace(task, output=folder.uri), worker, queue, launch)
            trainer = TorchTrainer(
                _run_worker,
                # As bytes, so that Ray Train's own actor need not import what a worker imports.
                train_loop_config={"input": cloudpickle.dumps(given)},
                torch_config=_torch_config(gpu, ray_files if own else None),
                scaling_config=ScalingConfig(
                    num_workers=least if least == most else (least, most),
                    use_gpu=gpu,
                    resources_per_worker={"CPU": threads} | ({"GPU": 1} if gpu else {}),
                ),
                run_config=RunConfig(  # type: ignore[arg-type]
                    name=launch,
                    # Files of Ray alone; the training state is in the output.
                    storage_path=ray_files,
                    failure_config=FailureConfig(max_failures=worker.max_failures),
                    logging_config=LoggingConfig(log_level="ERROR"),
                ),
            )
            with _forwarding(queue, on_progress, on_snapshot, on_score):
                failed = _run(trainer)
            message: str = ray.get(queue.failure.remote())
            if message or failed is not None:
                raise TrainingError(message or _too_many_failures(failed, worker)) from failed
    finally:
        shutil.rmtree(ray_files, ignore_errors=True)


@contextmanager
def _connected(address: str, cpus: int) -> Iterator[bool]:
    """Join a cluster, or start one with `cpus` for workers; yield whether it was started.

    Raises:
        TrainingError: the cluster cannot be started or reached.
    """
    with ExitStack() as stack:
        try:
            # Logical CPUs; one more is for Ray's own processes. Output of workers is not shown,
            # because it would break the progress bar. Their errors are raised here.
            variables = {} if address else loopback_variables()
            cluster = connected(address, cpus + 1, variables, log_to_driver=False)
            own = stack.enter_context(cluster)
        except ClusterError as error:
            raise TrainingError(str(error)) from error
        yield own


def _torch_config(gpu: bool, folder: str | None) -> TorchConfig:
    """How workers form a process group; `folder` is a folder of this machine that they share."""
    backend = "nccl" if gpu else "gloo"
    return LocalTorchConfig(backend, folder=folder) if folder else TorchConfig(backend)


def _run(trainer: TorchTrainer) -> Exception | None:
    """Run to the end; return the error of a run that failed too often."""
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None


def _too_many_failures(failed: Exception | None, worker: WorkerConfig) -> str:
    return (
        f"the workers failed more than worker.max_failures={worker.max_failures} times; the "
        "last checkpoint is intact, and the same command resumes from it. The last failure: "
        f"{failed}"
    )


def _run_worker(settings: dict[str, Any]) -> None:
    """The training on one worker, as Ray Train calls it."""
    given: _WorkerInput = pickle.loads(settings["input"])
    task, queue = given.task, given.queue
    if ray.get(queue.failure.remote()):
        return
    torch.set_num_threads(given.worker.threads)
    communicator = Communicator()

    def batches_from(first_step: int) -> Iterator[Any]:
        c = task.config
        order = shares(task.sizes, first_step, c.steps, communicator.rank, communicator.world)
        return load_batches(task.stream, order, given.worker.loaders)

    def on_checkpoint(step: int) -> None:
        report({"step": step})  # a barrier, which every worker reaches equally often

    last: Any = None

    def send(message: Any) -> None:
        nonlocal last
        last = queue.put.remote(pickle.dumps(message))

    try:
        _check_output(task.output, given.launch)
        train_on_worker(
            task,
            get_device(),
            communicator,
            batches_from,
            send,
            on_snapshot=lambda step, snapshot: send((step, snapshot)),
            on_score=send,
            on_checkpoint=on_checkpoint,
        )
    except TrainingError as error:
        ray.get(queue.fail.remote(str(error)))
    except ValueError as error:
        # Only this worker may have the bad input. The others wait for it, so Ray Train ends them.
        ray.get(queue.fail.remote(str(error)))
        raise
    finally:
        if last is not None:
            ray.get(last)  # messages that are not yet sent are lost when this process ends


def _check_output(output: str, launch: str) -> None:
    """Refuse an output that is another folder on this node than on the driver's."""
    found = RunFolder(output).read(_LAUNCH)
    if found is None or found.decode() != launch:
        raise ValueError(
            f"output={output} is not the same folder on node {ray.util.get_node_ip_address()} as "
            "on the node of the command; give a folder that all nodes share, or a URL such as "
            "s3://bucket/prefix"
        )


def load_batches(
    stream: Callable[[], Stream], order: Iterable[range], loaders: int
) -> Iterator[Any]:
    """Yield batches in order, made by Ray Data in processes of their own.

    Args:
        stream: opens the items to train on.
        order: indices of the items of each batch; may be endless.
        loaders: number of processes; 0 makes batches in this process.
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
    context.execution_no_progress_timeout_s = -1  # a full buffer is no error
    context.max_errored_blocks = 0
    context.max_consecutive_actor_init_deaths = 3
    order = iter(order)
    while rows := [{"first": r.start, "stop": r.stop} for r in islice(order, _ROUND)]:
        # One batch per block, because a block arrives only when all of it is made.
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Loader,
            fn_constructor_args=(stream,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=loaders, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
        )
        for table in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for value in table["batch"]:
                yield pickle.loads(value.as_buffer())


class _Loader:
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
    """Wait for nodes that are still joining; refuse if the cluster stays too small.

    Raises:
        TrainingError: CPUs or GPUs are missing; the message names them.
    """
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


def _start_queue() -> Any:
    """Start the actor of the queue; returns its handle."""
    # On the driver's node, so that it does not die with another node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return (
        ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ProgressQueue)
        .options(scheduling_strategy=here)
        .remote()
    )


@contextmanager
def _forwarding(
    queue: Any,
    on_progress: Callable[[Progress], None],
    on_snapshot: Callable[[int, Snapshot], None] | None,
    on_score: Callable[[Score], None] | None,
) -> Iterator[None]:
    """Call the callbacks with messages of the workers; all have been called on exit."""
    stop = threading.Event()
    failed: list[Exception] = []

    name, received = "", 0

    def forward() -> None:
        nonlocal name, received
        name, before, messages = ray.get(queue.take.remote(name, received), timeout=30)
        received = before
        for message in map(pickle.loads, messages):
            received += 1
            if isinstance(message, Progress):
                on_progress(message)
            elif isinstance(message, Score):
                if on_score is not None:
                    on_score(message)
            elif on_snapshot is not None:
                on_snapshot(*message)

    def poll() -> None:
        while not stop.wait(_POLL_S):
            try:
                forward()
            except (GetTimeoutError, RayError):
                continue  # only the display waits; the training goes on
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
    forward()
