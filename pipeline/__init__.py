"""The batch pipeline, which turns an archive of videos into tables of tracks and quality.

To track one video from Python, frame by frame:

```python
from pipeline import track

for frame in track("my.mp4"):  # lazily, one decoded frame after the other
    print(frame.time_s, frame.quality, frame.ids, frame.boxes)
```
"""

from importlib import import_module
from typing import Any

# The types are in __init__.pyi. These names are imported on first use, because every room of the
# pipeline imports this module first, and most rooms need no torch.
_OFFERED = {"track": "pipeline.tracking.api", "TrackedFrame": "pipeline.tracking.api"}


def __getattr__(name: str) -> Any:
    """Import a public name of the package on first use."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
