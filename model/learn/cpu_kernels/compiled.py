"""The kernels of `depthwise.cpp`, compiled for this CPU at first use."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("depthwise.cpp")
# Not -ffast-math: with it some compilers make a library that rounds the small numbers of the whole
# process to zero when it is loaded.
_OPTIONS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")


class KernelError(ValueError):
    """Kernels cannot be used on this machine; the message says why and what to do."""


class Sizes(ctypes.Structure):
    """Sizes of a depthwise convolution, as in `depthwise.cpp`.

    Attributes:
        images: number of images.
        channels: of input and output.
        height: of the input.
        width: of the input.
        out_height: height of the output.
        out_width: width of the output.
        kernel: side of the kernel.
        stride: of the kernel, down and right.
        top: rows of padding above the input.
        left: columns of padding left of the input.
    """

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "images", "channels", "height", "width", "out_height", "out_width",
            "kernel", "stride", "top", "left",
        )
    )  # fmt: skip


@cache
def kernels() -> ctypes.CDLL:
    """The kernels, loaded once in a process.

    Raises:
        KernelError: they cannot be compiled, kept or loaded here.
    """
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = compiled(os.environ.get("CXX") or "g++", cache_home / "vsdmot" / "kernels")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(
            f"compiled kernels cannot be loaded ({error}); set XDG_CACHE_HOME to a folder from "
            "which programs may be run, or train without native kernels"
        ) from error
    for name in ("depthwise_forward", "depthwise_grad_input", "depthwise_grad_weight"):
        function = getattr(library, name)
        function.argtypes = [ctypes.POINTER(Sizes), ctypes.c_int, *[ctypes.c_void_p] * 3]
        function.restype = None
    return library


def compiled(compiler: str, folder: Path) -> Path:
    """Path of the compiled kernels, which are made if they are not there.

    Several processes may do so at once: each renames a whole file.

    Args:
        compiler: command of a C++ compiler, such as g++.
        folder: where they are kept, one file for each source, compiler and CPU.

    Raises:
        KernelError: there is no compiler, it fails, or the folder cannot be written.
    """
    if shutil.which(compiler) is None:
        raise KernelError(
            f"native kernels need a C++ compiler, but there is no {compiler!r}; install g++, "
            "or name another one in the variable CXX, or train without native kernels"
        )
    version = _output([compiler, "--version"])
    # The code is for the CPU it was compiled on, and homes are shared between machines.
    parts = (_SOURCE.read_text(), version, *_OPTIONS, *sorted(cpu_flags()))
    path = folder / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.so"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as making:
                made = Path(making) / path.name
                _output([compiler, *_OPTIONS, "-o", str(made), str(_SOURCE)])
                made.replace(path)
        except OSError as error:
            raise KernelError(
                f"compiled kernels cannot be kept in {folder} ({error.strerror or error}); "
                "set XDG_CACHE_HOME to a folder that can be written"
            ) from error
    return path


@cache
def cpu_flags() -> frozenset[str]:
    """What this CPU can do, in the words of Linux; empty on another system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").partition(":")[2].split())


def _output(command: list[str]) -> str:
    """What a compiler says.

    Raises:
        KernelError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise KernelError(
            f"{' '.join(command)} failed: {said}\nName another C++ compiler in the variable CXX, "
            "or train without native kernels"
        )
    return done.stdout
