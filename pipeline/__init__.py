"""The batch pipeline: an archive of videos in, tables of tracks and quality out.

One video from Python, frame by frame:

```python
from pipeline import track

for frame in track("my.mp4"):  # lazily, one decoded frame after the other
    print(frame.time_s, frame.quality, frame.ids, frame.boxes)
```
"""

from importlib import import_module
from typing import Any

# Types stand in __init__.pyi. Loaded when asked for: importing any room of the pipeline imports
# this module first, and most of them need no torch.
_OFFERED = {"track": "pipeline.tracking.api", "TrackedFrame": "pipeline.tracking.api"}


def __getattr__(name: str) -> Any:
    """What the package offers, by name."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
