"""OpenVINO's `Core`: one for the process, made in a thread that ends at once, kept to the end.

OpenVINO's CPU plugin replaces the signal stack of the thread that loads it (OpenVINO 2026.4), which
can keep a process from dying or end it:

- The new stack has 11 KB. Ray's handler for SIGSEGV needs more. It overflows the stack, which
  raises SIGSEGV, which the kernel starts at the top of the same stack, for ever. A worker that
  crashed then never dies, and the run waits for it.
- When the plugin ends, it puts the stack before its own back. Of two plugins that end in the order
  of their start, the second puts back that of the first, which is gone. The next signal of the
  thread, such as the end of a child or Ctrl-C, then ends the process.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_lock = threading.Lock()
_core: Any = None


def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, with its CPU plugin loaded.

    Any thread may call it; the signal stack of the caller stays.
    """
    global _core
    with _lock:
        if _core is None:
            with ThreadPoolExecutor(1, "openvino-core") as passing:
                _core = passing.submit(_load).result()
        return _core


def _load() -> Any:
    # Imported here, because OpenVINO need not be installed.
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # the first use of a device loads its plugin
    return core
