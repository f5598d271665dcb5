"""The commands of `vsdmot`: what each is for, its positional words, an example, its common keys.

Nothing is imported here: the list of commands and the help of one have to be quick.
"""

import re
from dataclasses import dataclass

# A path with "=" in it is no setting if anything before the "=" cannot be in a key.
_SETTING = re.compile(r"\s*[A-Za-z_][\w.-]*\s*=")


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        job: Module of `jobs` that runs it, and name of its file in configs/.
        settings: Module and class of its settings.
        line: What it is for, in a line of a terminal.
        example: A real call.
        words: Keys whose values may be given by position, in this order.
        common: Other keys that many calls give; help shows them first.
    """

    job: str
    settings: str
    line: str
    example: str
    words: tuple[str, ...]
    common: tuple[str, ...] = ()


COMMANDS = {
    "track": Command(
        "track",
        "pipeline.tracking.config:TrackConfig",
        "Track the people in a folder of videos, into Parquet tables.",
        "vsdmot track /my/videos /my/tracks",
        ("input", "output"),
        ("weights", "low_quality_below", "cluster.workers"),
    ),
    "plan": Command(
        "plan",
        "pipeline.planning.config:PlanConfig",
        "Say what a run would do, take and cost; nothing is written.",
        "vsdmot plan /my/videos price_per_hour=0.04",
        ("input", "output"),
        ("rate", "price_per_hour", "cluster.workers", "plan.seconds", "json"),
    ),
    "status": Command(
        "status",
        "pipeline.status.config:StatusConfig",
        "Say how far a run is, on any machine, from its output.",
        "vsdmot status /my/tracks watch=true",
        ("output",),
        ("watch", "json"),
    ),
    "doctor": Command(
        "doctor",
        "pipeline.doctor.config:DoctorConfig",
        "Check what a run would use, and say what to do.",
        "vsdmot doctor /my/videos /my/tracks",
        ("input", "output"),
        ("weights", "cluster.address", "mlflow.uri", "only", "json"),
    ),
    "render": Command(
        "render",
        "jobs.render:RenderConfig",
        "Draw the tracks of a video on it, or blur its people.",
        "vsdmot render /my/tracks bikes.mp4",
        ("output", "video"),
        ("tracks", "start_s", "end_s", "min_trust", "blur"),
    ),
    "crops": Command(
        "crops",
        "jobs.crops:CropsConfig",
        "Cut clear pictures of each track out of the videos.",
        "vsdmot crops /my/tracks /my/pictures",
        ("output", "crops"),
        ("videos", "each", "min_trust"),
    ),
    "compact": Command(
        "compact",
        "pipeline.compaction.config:CompactConfig",
        "Merge the tables of finished videos into few large files.",
        "vsdmot compact /my/tracks",
        ("output",),
        ("partition", "file_mb"),
    ),
    "report": Command(
        "report",
        "pipeline.report.config:ReportConfig",
        "Write a page on a run, to look at in a browser.",
        "vsdmot report /my/tracks",
        ("output",),
        ("report", "pages", "player", "price_per_hour"),
    ),
    "export": Command(
        "export",
        "jobs.export:ExportConfig",
        "Export tracks to CVAT, COCO and others, or the tracker to ONNX.",
        "vsdmot export /my/tracks /my/files format=cvat",
        ("input", "output"),
        ("format", "videos", "min_trust"),
    ),
    "sample": Command(
        "sample",
        "jobs.sample:SampleConfig",
        "Make a small archive to try things on.",
        "vsdmot sample runs/sample-archive",
        ("output",),
    ),
    "pack": Command(
        "pack",
        "jobs.pack:PackConfig",
        "Turn labelled video and stills into training shards.",
        "vsdmot pack /my/shards 'sequences=[/my/MOT]' 'stills=[/my/coco.json]'",
        ("output",),
        ("sequences", "stills", "corrected", "videos", "longest"),
    ),
    "train": Command(
        "train",
        "pipeline.training.train_job:TrainJob",
        "Train a student on shards.",
        "vsdmot train /my/shards /my/student training.minutes=60",
        ("shards", "output"),
        ("start", "learn", "training.minutes", "training.batch", "clips.length", "cluster.workers"),
    ),
    "distill": Command(
        "distill",
        "pipeline.training.distill_job:DistillJob",
        "Distil a student from a teacher, on unlabelled videos.",
        "vsdmot distill /my/videos /my/student training.steps=5000",
        ("input", "output"),
        ("start", "teacher.model", "training.steps", "training.batch", "cluster.workers"),
    ),
    "measure": Command(
        "measure",
        "jobs.measure_settings:MeasureConfig",
        "Measure detection, semantics, quality, or the cost of still.skip.",
        "vsdmot measure quality /my/sequences",
        ("what", "data"),
        ("weights", "stills", "output"),
    ),
    "eval": Command(
        "eval",
        "jobs.eval:EvalConfig",
        "Score trackers on sequences with ground truth, clean and degraded.",
        "vsdmot eval /my/MOT/train runs/eval 'trackers=[student,bytetrack]'",
        ("data", "output"),
        ("weights", "trackers", "degradations", "severities", "cluster.workers"),
    ),
    "bench": Command(
        "bench",
        "jobs.bench:BenchConfig",
        "Measure how fast tracking is, and against what.",
        "vsdmot bench /my/videos/bikes.mp4 measures=[path,job]",
        ("video",),
        ("weights", "measures", "detector", "still"),
    ),
    "kit": Command(
        "kit",
        "pipeline.kit.kit_job:KitJob",
        "Make a folder that a bare GPU machine trains from.",
        "vsdmot kit /my/shards runs/kit",
        ("shards", "output"),
        ("start", "stages", "part_mb", "device"),
    ),
    "kit-back": Command(
        "kit_back",
        "jobs.kit_back:KitBackConfig",
        "Join the weights that came back of such a machine.",
        "vsdmot kit-back /my/returned /my/student.safetensors",
        ("input", "output"),
    ),
}


def command_of(job: str) -> tuple[str, Command] | None:
    """The command that runs a job, by its name; None where the job is no command."""
    return next(((name, c) for name, c in COMMANDS.items() if c.job == job), None)


def is_setting(word: str) -> bool:
    """Whether a word of a command line gives a setting, as `key=value`."""
    return _SETTING.match(word) is not None
