"""Export a run of vsdmot track or of vsdmot eval, or the tracker itself, in another format.

``vsdmot export RUN FOLDER``, ``vsdmot export nano FOLDER format=onnx``

Exit codes: 0 done; 1 the run or the weights cannot be read, there is nothing to export, or the
format cannot be written; 2 a bad setting.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.net.config import CanvasSide
from model.settings import NotEmpty, Range, Share, check
from pipeline.exchange.config import Format, TracksConfig

_MODELS = ("onnx", "openvino", "torch")
_OF_TRACKS = ("videos", "class_name", "min_trust", "tolerance_px", "video_prefix")
_OF_MODELS = ("canvas",)


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Settings of `vsdmot export`.

    Attributes:
        input: folder or URL of a run, the output of vsdmot track or vsdmot eval; for onnx,
            openvino and torch the weights: a path, a URL, or the name of shipped ones.
        output: folder or URL for the files.
        format: motchallenge writes the tracks of a run, one NAME.txt for each video, and all of
            them in motchallenge.zip; for vsdmot eval, into folders TRACKER/CONDITION/seed-N. coco
            writes one coco.json with videos, images and annotations with track ids; cvat one XML
            for each video (CVAT for video 1.1); labelstudio one JSON for each video, and the
            labelling interface; kitti label_02/NAME.txt; csv a table for each video. onnx,
            openvino and torch (TorchScript) write the tracker as two models, which run without
            this project, and model.json, which describes them; see examples/track_exported.py.
        videos: videos to export, each by its id, its path in the archive, its file name, or a
            pattern of one of these with * and ?; none exports all.
        class_name: class whose tracks are exported; only for runs of vsdmot track.
        min_trust: least trust of a track, see track_summary; null exports all.
        tolerance_px: greatest error in pixels of the boxes between two keyframes of cvat and
            labelstudio; 0 writes a keyframe wherever a box does not move in a straight line.
        video_prefix: put before the path of a video in the archive to make the address under which
            Label Studio finds it.
        canvas: height and width of the tracker's pictures in pixels; null: those of the weights.
    """

    job: ClassVar[str] = "export"
    about: ClassVar[str] = "Write the tracks of a run, or the tracker, in another format."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]
    format: Literal[
        "motchallenge", "coco", "cvat", "labelstudio", "kitti", "csv", "onnx", "openvino", "torch"
    ] = "motchallenge"
    videos: tuple[str, ...] = ()
    class_name: str = "person"
    min_trust: Share | None = None
    tolerance_px: Annotated[float, Range(0)] = 1.0
    video_prefix: str = "/data/local-files/?d="
    canvas: tuple[CanvasSide, CanvasSide] | None = None

    def __post_init__(self) -> None:
        check(self)
        model = self.format in _MODELS
        foreign = _OF_TRACKS if model else _OF_MODELS
        given = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        for name in foreign:
            if name in given:
                what = "the tracker, no tracks" if model else "tracks, not the tracker"
                raise ValueError(f"{name}: format={self.format} writes {what}; leave {name} out")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(ExportConfig, argv)
    print_config(console, config)
    if config.format in _MODELS:
        return _export_tracker(config, cast(Literal["onnx", "openvino", "torch"], config.format))
    return _export_tracks(config, cast(Format, config.format))


def _export_tracks(config: ExportConfig, form: Format) -> int:
    from pipeline.benchmark.export import export_benchmark, is_benchmark
    from pipeline.exchange.errors import ExportError
    from pipeline.exchange.export import export_tracks
    from pipeline.storage.files import StorageError

    run, output = config.input.rstrip("/"), config.output.rstrip("/")
    where = output
    try:
        if is_benchmark(run):
            if form != "motchallenge":
                raise ExportError(
                    f"{run}: is a run of vsdmot eval, which is exported as motchallenge alone"
                )
            if config.videos or config.min_trust is not None:
                raise ExportError(
                    f"{run}: is a run of vsdmot eval, which is exported whole; leave videos and "
                    "min_trust out"
                )
            count, folders = export_benchmark(run, output)
            where = f"each of {folders} folders below {output}" if folders > 1 else output
        else:
            chosen = TracksConfig(
                form, config.videos, config.class_name, config.min_trust, config.tolerance_px,
                config.video_prefix,
            )  # fmt: skip
            count = export_tracks(run, output, chosen)
    except (ExportError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    what = f"{count} files"
    if form == "motchallenge":
        what = f"{count} result files, and motchallenge.zip"
    console.print(f"{what} in {where}", soft_wrap=True, markup=False)
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
