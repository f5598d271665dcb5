"""Pack labelled video and stills into training shards: `vsdmot pack OUTPUT`."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.cli import EXIT_DONE, EXIT_FAILED, fail, load_config, print_config
from model.settings import Range, check


@dataclass(frozen=True, slots=True)
class PackConfig:
    """Settings of `vsdmot pack`.

    Attributes:
        sequences: folders with sequences in MOTChallenge layout, at any depth; `make pack
            DATA=FOLDER` takes FOLDER/sequences/train.
        stills: COCO annotation files, with the pictures in the folder images/ beside each; `make
            pack DATA=FOLDER` takes FOLDER/images/annotations.json.
        corrected: tracks that were corrected by hand: files of CVAT (CVAT for video 1.1, .xml or
            .zip) and of Label Studio (.json), or folders of these.
        videos: folder or URL with the videos of corrected=, or the one video.
        person_labels: labels in corrected= of people.
        ignored_labels: labels in corrected= of what is not to be learnt, neither as a person nor
            as background.
        output: folder for the shards.
        poor_sources: glob patterns of sources of stills, or of names of sequences, whose pictures
            may be degraded already.
        squeezed_sources: glob patterns of sources whose pictures are stretched, so that people are
            too wide or too narrow.
        loose_sources: glob patterns of sources of stills whose boxes are too large or beside
            people, as after a rotation. They teach who is there, not where a box ends.
        drawn: number of synthetic sequences to make and pack too; they are for tests, a student
            learns nothing useful from them.
        longest: length of the longer side of a stored picture, in pixels.
    """

    job: ClassVar[str] = "pack"
    about: ClassVar[str] = "Turn labelled video and stills into training shards."

    sequences: tuple[str, ...] = ()
    stills: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    videos: str = ""
    person_labels: tuple[str, ...] = ("person",)
    ignored_labels: tuple[str, ...] = ()
    output: str = "runs/shards"
    poor_sources: tuple[str, ...] = ()
    squeezed_sources: tuple[str, ...] = ()
    loose_sources: tuple[str, ...] = ()
    drawn: Annotated[int, Range(0, 100)] = 0
    longest: Annotated[int, Range(64)] = 640

    def __post_init__(self) -> None:
        check(self)
        if not (self.sequences or self.stills or self.corrected or self.drawn):
            raise ValueError(
                "nothing to pack; give sequences, stills or corrected, or make pack DATA=FOLDER"
            )


def main(argv: list[str]) -> int:
    """Run the job; returns the exit code."""
    config = load_config(PackConfig, argv)
    console = Console()
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.datasets.corrected import LabelNames, LabelsError
    from pipeline.datasets.mot import MotError, find_sequences, read_sequence
    from pipeline.datasets.pack_corrected import find_videos, pack_corrected, read_corrected
    from pipeline.datasets.packing import KnownSources, PackError, pack_coco, pack_sequence
    from pipeline.datasets.shards import ShardError, ShardWriter
    from pipeline.datasets.synthetic import make_synthetic
    from pipeline.storage.errors import StorageError

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        roots = list(config.sequences)
        if config.drawn:
            roots.append(str(make_synthetic(Path(config.output) / "drawn", config.drawn)))
        sequences = [read_sequence(f) for root in roots for f in find_sequences(root)]
        corrected = read_corrected(config.corrected)
        headers = find_videos(corrected, config.videos) if corrected else []
        names = LabelNames(config.person_labels, config.ignored_labels)
        writer = ShardWriter(config.output, ["person"])
        known = KnownSources(config.poor_sources, config.squeezed_sources, config.loose_sources)
        problems: list[str] = []
        with Progress(*columns, console=console) as progress:
            for path in config.stills:
                advance = partial(progress.advance, progress.add_task(path, total=None))
                problems += pack_coco(path, writer, config.longest, known, advance)
            for sequence in sequences:
                task = progress.add_task(sequence.name, total=sequence.length)
                advance = partial(progress.advance, task)
                problems += pack_sequence(sequence, writer, config.longest, known, advance)
            notes: list[str] = []
            for labels, info in zip(corrected, headers, strict=True):
                task = progress.add_task(info.relative_path, total=info.frames_expected)
                advance = partial(progress.advance, task)
                notes += pack_corrected(labels, info, writer, config.longest, known, names, advance)
        for note in notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        for problem in problems:
            console.print(f"left out: {problem}", highlight=False, markup=False)
        if problems:
            console.print(f"{len(problems)} files left out", highlight=False)
        writer.close()
    except (LabelsError, MotError, PackError, ShardError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    for shard in writer.written:
        console.print(f"{shard}  {shard.stat().st_size / 1e6:.1f} MB", highlight=False)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
