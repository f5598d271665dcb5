"""Cores, memory, shared memory and GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.runtime.machine import usable_cores

_GB = 10**9
_WORKER = 1.5 * _GB  # of a worker with a video of common size
_SHARED = 256 * 10**6  # bytes that Ray's object store needs; our rows are small
_SMI = ("name", "driver_version", "memory.total")
_SMI_S = 20


def check_machine(config: DoctorConfig) -> Iterable[Finding]:
    """Cores and memory, by the limits of the container, and /dev/shm, which Ray uses."""
    from pipeline.tracking.memory_estimate import machine_memory

    cores, there = usable_cores(), os.cpu_count() or 1
    less = f", of {there} of the machine (affinity or container)" if cores < there else ""
    yield ok("cores", f"{cores} usable{less}: as many workers, without GPUs")
    yield memory(machine_memory(), cores)
    if config.cluster.workers != 0:
        yield shared_memory(Path("/dev/shm"))


def memory(free: float, cores: int) -> Finding:
    """Whether free memory is enough for a worker on each core."""
    text = f"{free / _GB:.1f} GB free, a worker takes about {_WORKER / _GB:g}"
    if free < _WORKER:
        return problem("memory", text, "free some memory, or raise the limit of the container")
    if free < cores * _WORKER:
        fit = int(free / _WORKER)
        return warning(
            "memory", f"{text}: enough for {fit} of {cores} workers", "a run starts as many as fit"
        )
    return ok("memory", text)


def shared_memory(folder: Path) -> Finding:
    """Whether Ray has shared memory."""
    if not folder.is_dir():
        return ok("shared memory", f"there is no {folder}; Ray uses the temporary folder")
    free = shutil.disk_usage(folder).free
    text = f"{free / _GB:.2f} GB free in {folder}"
    if free < _SHARED:
        return warning(
            "shared memory",
            f"{text}; Ray then uses the disk, which is slower",
            "in Docker: --shm-size=1g; in Kubernetes: a volume of medium Memory at /dev/shm",
        )
    return ok("shared memory", text)


def check_gpu(config: DoctorConfig) -> Iterable[Finding]:
    """Whether torch can compute on the GPUs that the driver sees."""
    import torch

    seen, reason = _driver()
    built = torch.version.cuda
    if torch.cuda.is_available():
        yield from _usable(torch)
    elif not seen:
        yield ok("gpu", f"none ({reason}); workers run on CPUs")
    elif built is None:
        yield problem(
            "gpu",
            f"{'; '.join(seen)}, but torch {torch.__version__} is built for CPUs alone",
            "install the build of torch for CUDA, by the command that pytorch.org gives, or go on "
            "on CPUs",
        )
    else:
        yield problem(
            "gpu",
            f"{'; '.join(seen)}, but torch {torch.__version__} for CUDA {built} cannot use it: "
            f"{_cuda_error(torch)}",
            f"update the NVIDIA driver to one for CUDA {built}, or install a torch for an older "
            "CUDA; in Docker give --gpus all",
        )


def _driver() -> tuple[list[str], str]:
    """GPUs as the driver lists them, and why there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "no nvidia-smi"
    command = [program, f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_S)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        return [], (done.stderr or done.stdout).strip() or f"nvidia-smi: {done.returncode}"
    return lines, "nvidia-smi lists none"


def _cuda_error(torch: object) -> str:
    try:
        torch.zeros(1, device="cuda")  # type: ignore[attr-defined]
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "it is not available"


def _usable(torch: object) -> Iterator[Finding]:
    cuda = torch.cuda  # type: ignore[attr-defined]
    for number in range(cuda.device_count()):
        device = f"cuda:{number}"
        free, total = cuda.mem_get_info(device)
        name = f"{cuda.get_device_name(device)}, {free / _GB:.1f} of {total / _GB:.1f} GB free"
        square = torch.ones(64, 64, device=device)  # type: ignore[attr-defined]
        if float((square @ square).sum().cpu()) == 64.0**3:
            yield ok("gpu", f"{name}: computes")
        else:
            yield problem("gpu", f"{name}: computes wrong sums", "test the card's memory")
