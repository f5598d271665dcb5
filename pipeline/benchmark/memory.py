"""Peak RAM of a tracker, measured in a process of its own.

The process loads the code of a worker, then opens the tracker and tracks the first frames of a
clean sequence, with decoding in a thread as in a worker. Its resident memory is sampled all the
time. `added_mb` is the highest sample less the one before the tracker was opened: weights,
activations, decoded frames that wait, and code of the runtime. It is host memory on the CPU.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace

import psutil
import torch

from model.allocator import keep_large_blocks
from pipeline.benchmark.plan import EvalSettings, plan_cells
from pipeline.benchmark.run_trackers import run_trackers
from pipeline.datasets.mot import Sequence as Clip
from pipeline.degrade.conditions import Condition
from pipeline.speed.peak_memory import peak_memory
from pipeline.storage import files as storage
from pipeline.trackers.peers import track_detections
from pipeline.trackers.runners import joined
from pipeline.trackers.spec import FILES, PUBLIC, TrackerSpec

_FRAMES = 24  # enough, because windows after the first reuse its memory


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Megabytes (10^6 bytes) of resident memory (RAM) at the peak.

    Attributes:
        added_mb: above the memory of the process before the tracker was opened.
        process_mb: all of it.
    """

    added_mb: float
    process_mb: float


def peak_memories(
    trackers: Sequence[TrackerSpec],
    clips: Mapping[str, Clip],
    settings: EvalSettings,
    warn: Callable[[str], None],
) -> dict[str, MemoryUse]:
    """Peak memory of each tracker on the sequence with the largest pictures.

    Measured once and kept below the output. A tracker that could not be measured is missing, and
    `warn` is called with the reason. Result files are missing too.
    """
    # Imported here, so that a tracker's process does not load the libraries for scores.
    from pipeline.benchmark.unit import EXPECTED

    found = {}
    clip = max(clips.values(), key=lambda clip: clip.width * clip.height)
    for tracker in trackers:
        try:
            use = _peak_memory(tracker, clip, settings)
        except (*EXPECTED, BrokenProcessPool) as error:
            warn(f"peak memory of {tracker.name} is not measured: {error}")
            continue
        if use is not None:
            found[tracker.name] = use
    return found


def _peak_memory(tracker: TrackerSpec, clip: Clip, settings: EvalSettings) -> MemoryUse | None:
    if tracker.kind == FILES or (tracker.kind == PUBLIC and clip.detections is None):
        return None
    frames = min(_FRAMES, settings.length(clip))
    settings = replace(settings, frames=frames, device="cpu")
    (cell,) = (
        c for c in plan_cells([clip], [Condition()], [tracker], settings) if c.tracker == tracker
    )
    uri = f"{settings.output}/memory/{cell.name}.json"
    if not storage.exists(uri):
        # Spawned, because a fork would start with the memory of this process.
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            found = process.submit(_measure, tracker, clip, settings).result()
        storage.create_if_absent(uri, json.dumps(asdict(found)).encode())
    return MemoryUse(**json.loads(storage.read_bytes(uri)))


def _measure(tracker: TrackerSpec, clip: Clip, settings: EvalSettings) -> MemoryUse:
    """Body of the process: run the tracker and return its peak memory."""
    torch.set_num_threads(1)
    keep_large_blocks()
    before = psutil.Process().memory_info().rss
    with peak_memory() as highest:
        if tracker.kind == PUBLIC:
            detections = clip.detections
        else:
            runs = run_trackers(clip, Condition(), [tracker.source], settings)
            detections = joined(runs.outputs[tracker.source.name].detections)
        if tracker.peer:
            assert detections is not None
            track_detections(
                tracker.peer, detections, settings.length(clip), clip.frame_rate, settings.trusted
            )
    return MemoryUse((highest[0] - before) / 1e6, highest[0] / 1e6)
