"""All measures of a speed kit, on its machine."""

import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model.allocator import keep_large_blocks
from model.track.tracker import Tracker
from pipeline.inference.batched_model import BatchedModel
from pipeline.inference.precision import PRECISIONS, Precision
from pipeline.inference.stream_batcher import StreamBatcher
from pipeline.kit.folder import START, KitError, join_kit, read_kit, read_stage
from pipeline.kit.gpu_rates import (
    Footage,
    OnDevice,
    alone,
    beside,
    compared,
    model_rates,
    stream_rate,
)
from pipeline.kit.roofline import measured_peaks, work_of

FRAMES, VIDEO = "frames.npz", "video.mp4"
"""Names of the joined files beside the weights."""


def measure(
    folder: Path, deadline: float, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure all there is time for; what could not be measured is named in `not_measured`.

    Args:
        folder: folder of the kit.
        deadline: time when the command must end, by `time.monotonic`.
        save: called with the figures so far, after each measure.

    Raises:
        KitError: parts are missing, there is no GPU, or no batch could be measured.
        CheckpointError: the weights cannot be used.
    """
    keep_large_blocks()
    kit = read_kit(folder)
    if kit.device == "cuda" and not torch.cuda.is_available():
        raise KitError(
            "torch finds no GPU on this machine; to rehearse on a CPU, make the kit with device=cpu"
        )
    with tempfile.TemporaryDirectory(dir=folder) as joined:
        join_kit(folder, kit, joined)
        settings = read_stage(folder, kit.stages[0])
        measures = _Measures(Path(joined), torch.device(kit.device), deadline, settings, save)
        return measures.all()


class _Measures:
    def __init__(
        self,
        files: Path,
        device: torch.device,
        deadline: float,
        settings: dict[str, Any],
        save: Callable[[dict[str, Any]], None],
    ) -> None:
        self._files, self._device, self._deadline, self._save = files, device, deadline, save
        with np.load(files / FRAMES) as held:
            # Colours last in memory, as decoded frames are.
            self._footage = Footage(
                torch.from_numpy(held["images"]).permute(0, 3, 1, 2),
                torch.from_numpy(held["valid"]),
                torch.from_numpy(held["patches"]),
            )
        self._window: int = settings["window"]
        self._rows: list[int] = settings["rows"]
        self._seconds: float = settings["seconds"]
        self._skipped: list[str] = []
        self._figures: dict[str, Any] = {
            "machine": self._machine(),
            "settings": {"window": self._window, "canvas": self._footage.canvas},
            "rates": [],
            "not_measured": self._skipped,
        }

    def all(self) -> dict[str, Any]:
        """The figures, by measure."""
        for precision in reversed(PRECISIONS):  # the fastest first, if the time should be short
            for rows in self._rows:
                run = partial(self._rate, precision, rows)
                rate = self._tried(f"{rows} videos in {precision}", run)
                if rate is None:  # more videos need more time and memory
                    break
                self._figures["rates"].append(rate)
        if not self._figures["rates"]:
            raise KitError(f"no batch could be measured: {'; '.join(self._skipped)}")
        best = max(self._figures["rates"], key=lambda r: float(r["frames_per_second"]))
        measures: dict[str, Callable[[], Any]] = {
            "streams": partial(self._streams, best["precision"], best["rows"]),
            "roofline": partial(self._roofline, best),
            "agreement": partial(self._agreement, best["rows"]),
            "decode": self._decode,
        }
        for name, call in measures.items():
            self._figures[name] = self._tried(name, call)
            self._save(self._figures)
        return self._figures

    def _model(self, precision: Precision, rows: int) -> BatchedModel:
        if self._device.type == "cuda":  # give back what earlier models held
            gc.collect()
            torch.cuda.empty_cache()
        tracker, _ = Tracker.load(self._files / START, self._device)
        return BatchedModel(tracker, rows, rows * self._window, precision)

    def _tried(self, name: str, run: Callable[[], Any]) -> Any:
        """The result of a measure; None if there is no time for it, or if it fails."""
        if time.monotonic() > self._deadline:
            self._skipped.append(f"{name}: no time was left")
            return None
        print(f"{name} …", flush=True)
        try:
            return run()
        except RuntimeError as error:  # torch's, memory included; the other figures stay
            self._skipped.append(f"{name}: {str(error).splitlines()[0]}")
            return None

    def _rate(self, precision: Precision, rows: int) -> dict[str, Any]:
        rates = model_rates(
            self._model(precision, rows), self._footage.canvas, self._window, self._seconds
        )
        return {"precision": precision, "rows": rows, **rates}

    def _streams(self, precision: Precision, rows: int) -> list[dict[str, Any]]:
        """Threads of one worker: one video, and two batches of videos."""
        return [
            stream_rate(self._model(precision, n), self._footage, self._window, streams,
                        4 * self._seconds)
            for n, streams in ((1, 1), (rows, 2 * rows))
        ]  # fmt: skip

    def _roofline(self, best: dict[str, Any]) -> dict[str, Any]:
        """Share of what the card's own peaks allow, for a batch encoded and stepped."""
        model = self._model(best["precision"], best["rows"])
        encode, step = model.calls(self._footage.canvas)
        works = {
            "encode": work_of(lambda: encode.function(encode.inputs)),
            "step": work_of(lambda: step.function(step.inputs)),
        }
        peaks = measured_peaks(self._device, best["precision"] == "tf32")
        found: dict[str, Any] = {"peak_flops": peaks.flops, "peak_bytes": peaks.bytes}
        for name, work in works.items():
            frames = best["rows"] * (self._window if name == "encode" else 1)
            least = 1000 * work.least_seconds(peaks)
            found[name] = {
                "precision": best["precision"],
                "frames": frames,
                "gflops_a_frame": sum(work.flops.values()) / frames / 1e9,
                "mbytes_a_frame": work.bytes / frames / 1e6,
                "least_ms": least,
                "taken_ms": best[f"{name}_ms"],
                "share": least / best[f"{name}_ms"],
            }
        return found

    def _agreement(self, rows: int) -> dict[str, Any]:
        """How far results are from those of plain PyTorch in float32 on the same device."""
        frames, window = len(self._footage.images), self._window
        self._model("fp32", 1)  # it sets torch to float32
        plain = OnDevice(Tracker.load(self._files / START, self._device)[0])
        wanted = alone(plain, self._footage, window, frames)
        found: dict[str, Any] = {"frames": len(wanted)}
        for precision in PRECISIONS:
            batcher = StreamBatcher(self._model(precision, 1))
            own = alone(batcher, self._footage, window, frames)
            batcher.close()
            joined = beside(self._model(precision, rows), self._footage, window, frames)
            found[precision] = {
                "to_plain_fp32": compared(own, wanted),
                "beside_others_to_alone": compared(joined, own),
            }
        return found

    def _decode(self) -> dict[str, Any]:
        """Frames a second of decoding and scaling to the canvas, by OpenCV, on the CPU."""
        path, cores = str(self._files / VIDEO), len(os.sched_getaffinity(0))
        height, width = self._footage.canvas
        options = [cv2.CAP_PROP_N_THREADS, 1]

        def one(_: int) -> int:
            video, frames = cv2.VideoCapture(path, cv2.CAP_FFMPEG, options), 0
            while time.perf_counter() - started < 4 * self._seconds:
                there, picture = video.read()
                if not there:
                    if not frames:
                        return 0
                    video.open(path, cv2.CAP_FFMPEG, options)
                    continue
                cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
                frames += 1
            return frames

        found: dict[str, Any] = {"cores": cores, "decoder": f"OpenCV {cv2.__version__}"}
        for name, threads in (("one_core", 1), ("all_cores", cores)):
            started = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                frames = sum(pool.map(one, range(threads)))
            found[name] = frames / (time.perf_counter() - started) if frames else None
        return found

    def _machine(self) -> dict[str, Any]:
        cuda = self._device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self._device) if cuda else "CPU",
            "memory_mib": torch.cuda.mem_get_info(self._device)[1] / 2**20 if cuda else None,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
        }
