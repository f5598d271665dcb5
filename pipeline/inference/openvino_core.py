"""OpenVINO's `Core`: one for the process, kept to its end.

OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers, and takes that
away with the plugin. Of two plugins that end in the order of their start, the second puts the stack
of the first back, which is gone. The next signal of that thread, such as the end of a child or
Ctrl-C, then ends the process by SIGSEGV (OpenVINO 2026.4).
"""

import threading
from typing import Any

_lock = threading.Lock()
_core: Any = None


def openvino_core() -> Any:
    """Return the `openvino.Core` of this process; any thread may call it."""
    global _core
    with _lock:
        if _core is None:
            # Imported here, because OpenVINO need not be installed.
            import openvino

            _core = openvino.Core()
        return _core
