"""Export a run of vsdmot track or of vsdmot eval, or the tracker itself, in another format.

``vsdmot export RUN FOLDER``, ``vsdmot export nano FOLDER format=onnx``

Exit codes: 0 done; 1 the run or the weights cannot be read, there is nothing to export, or the
format cannot be written; 2 a bad setting.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, Range, check

_Side = Annotated[int, Range(64, multiple_of=32)]


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Settings of `vsdmot export`.

    Attributes:
        input: folder or URL of a run, the output of vsdmot track or vsdmot eval; for onnx,
            openvino and torch the weights: a path, a URL, or the name of shipped ones.
        output: folder or URL for the files.
        format: motchallenge writes the tracks of a run, one NAME.txt for each video, and all of
            them in motchallenge.zip; for vsdmot eval, into folders TRACKER/CONDITION/seed-N. onnx,
            openvino and torch (TorchScript) write the tracker as two models, which run without
            this project, and model.json, which describes them; see examples/track_exported.py.
        class_name: class whose tracks are exported; only for runs of vsdmot track.
        canvas: height and width of the tracker's pictures in pixels; null: those of the weights.
    """

    job: ClassVar[str] = "export"
    about: ClassVar[str] = "Write the tracks of a run, or the tracker, in another format."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]
    format: Literal["motchallenge", "onnx", "openvino", "torch"] = "motchallenge"
    class_name: str = "person"
    canvas: tuple[_Side, _Side] | None = None

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(ExportConfig, argv)
    print_config(console, config)
    if config.format == "motchallenge":
        return _export_tracks(config)
    return _export_tracker(config, config.format)


def _export_tracks(config: ExportConfig) -> int:
    from pipeline.benchmark.export import (
        ExportError,
        benchmark_tracks,
        is_benchmark,
        motchallenge_files,
        run_tracks,
        zipped,
    )
    from pipeline.storage.files import StorageError, write_atomic

    run, output = config.input.rstrip("/"), config.output.rstrip("/")
    count = 0
    try:
        if is_benchmark(run):
            folders = {f"{output}/{k}": tracks for k, tracks in benchmark_tracks(run).items()}
        else:
            folders = {output: run_tracks(run, config.class_name)}
        for folder, tracks in folders.items():
            files = motchallenge_files(tracks)
            for name, content in files.items():
                write_atomic(f"{folder}/{name}", content)
            write_atomic(f"{folder}/motchallenge.zip", zipped(files))
            count += len(files)
    except (ExportError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    where = output if len(folders) == 1 else f"each of {len(folders)} folders below {output}"
    console.print(
        f"{count} result files, and motchallenge.zip in {where}", soft_wrap=True, markup=False
    )
    return EXIT_DONE


def _export_tracker(config: ExportConfig, kind: Literal["onnx", "openvino", "torch"]) -> int:
    # Imported here, because torch is slow to import and a run is exported without it.
    from model.track.checkpoint import CheckpointError, file_sha256, pretrained_weights
    from model.track.tracker import Tracker
    from pipeline.inference.export import ExportUnavailable, check_format, export_model
    from pipeline.storage.files import StorageError, write_atomic
    from pipeline.tracking.track_video import local_weights

    output = config.output.rstrip("/")
    try:
        check_format(kind)
        found = config.input if "://" in config.input else str(pretrained_weights(config.input))
        with local_weights(found) as weights, tempfile.TemporaryDirectory() as folder:
            tracker, _ = Tracker.load(weights)
            own = tracker.config.input_height, tracker.config.input_width
            canvas = config.canvas or own
            files = export_model(tracker, kind, Path(folder), *canvas, file_sha256(weights))
            for path in files:
                write_atomic(f"{output}/{path.name}", path.read_bytes())
    except (CheckpointError, ExportUnavailable, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    names = ", ".join(path.name for path in files)
    console.print(f"{names} in {output}", soft_wrap=True, markup=False, highlight=False)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
