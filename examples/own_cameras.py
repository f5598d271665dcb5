"""Teach the student a camera of your own: track, correct, pack, train, track better.

own_cameras.py FOLDER [STEPS]

Needs the extra eval. Shows the whole way on drawn people, who look like nothing that the student
was trained on. The corrections are made by this script, which knows what was drawn; on real videos
a person makes them in CVAT or Label Studio. Prints how well a third video, which is not trained on,
is tracked before and after.
"""

import shlex
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from jobs.__main__ import main as run_command
from model.track.checkpoint import pretrained_weights
from pipeline.benchmark.metrics import iou_matrix, tracking_scores
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import Sequence, read_results, read_sequence
from pipeline.datasets.synthetic import make_synthetic

LEARNT, HELD_OUT = ("SYNTH-01", "SYNTH-02"), "SYNTH-03"
SAME_PERSON = 0.3  # an annotator moves a box with this overlap, and deletes one with less
HERE = ("cluster.workers=0", "mlflow.enabled=false", "report=false")


def vsdmot(*words: str) -> None:
    """Run a command as in a terminal."""
    print("\n$ vsdmot", shlex.join(words), flush=True)
    if code := run_command(list(words)):
        sys.exit(f"vsdmot {words[0]} ended with {code}")


def main(folder: Path, steps: int = 60, weights: str = "nano", frames: int = 60) -> list[float]:
    """Go all the way; returns HOTA of the held-out video before and after, in percent.

    Args:
        folder: a folder for all that is made.
        steps: steps of the training.
        weights: the student to start from, a name or a path.
        frames: frames of each drawn video.
    """
    drawn = make_synthetic(folder / "drawn", 3, frames)
    truth = {name: read_sequence(drawn / name) for name in (*LEARNT, HELD_OUT)}
    for place, names in (("videos", LEARNT), ("held-out", (HELD_OUT,))):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(truth[name].video, folder / place / f"{name}.mp4")
    start = str(pretrained_weights(weights))
    before = score(folder, truth[HELD_OUT], start, "before")

    # 1. Track the camera's videos. 2. Take the tracks to the labelling tool.
    vsdmot("track", f"{folder}/videos", f"{folder}/tracks", f"weights={start}", *HERE)
    vsdmot("export", f"{folder}/tracks", f"{folder}/to-correct", "format=cvat")
    # 3. Correct them, and export them from the tool.
    (folder / "corrected").mkdir(exist_ok=True)
    for file in sorted((folder / "to-correct").glob("*.xml")):
        correct(file, folder / "corrected" / file.name, truth)
    # 4. Pack. 5. Train.
    vsdmot("pack", f"{folder}/shards", f"corrected=[{folder}/corrected]", f"videos={folder}/videos")
    vsdmot(
        "train", f"{folder}/shards", f"{folder}/student", f"start={start}",
        "clips.height=192", "clips.width=256", "clips.stills=0", "clips.degraded=0",
        "clips.small=0", f"training.steps={steps}", "training.batch=2", "training.warmup=10",
        "training.average=0.9", "training.learning_rate=2e-4",
        "worker.loaders=0", "mlflow.enabled=false",
    )  # fmt: skip
    # 6. Track with the new student.
    after = score(folder, truth[HELD_OUT], f"{folder}/student/vsdmot-nano.safetensors", "after")
    print(f"\nHOTA of {HELD_OUT}, which was not trained on: {before:.1f} before, {after:.1f} after")
    return [before, after]


def correct(file: Path, target: Path, truth: dict[str, Sequence]) -> None:
    """Do in an XML file of CVAT what an annotator does in CVAT.

    A track of a person gets boxes that fit; a false or second track is deleted; people without a
    track get one.
    """
    tree = ElementTree.parse(file)
    root = tree.getroot()
    name = Path(root.findtext("meta/task/source", "")).stem
    people = by_person(truth[name].gt)
    last = int(root.findtext("meta/task/stop_frame", "0"))
    deleted = 0
    found: set[int] = set()
    for track in root.findall("track"):
        person = most_like(track, people)
        if person is None or person in found:
            root.remove(track)
            deleted += 1
            continue
        found.add(person)
        for box in list(track):
            track.remove(box)
        draw(track, people[person], last)
    missed = people.keys() - found
    for person in sorted(missed):
        track = ElementTree.SubElement(root, "track", label="person", source="manual")
        draw(track, people[person], last)
    for number, track in enumerate(root.findall("track")):
        track.set("id", str(number))
    tree.write(target, "utf-8", xml_declaration=True)
    print(f"{name}: {len(found)} tracks moved, {deleted} deleted, {len(missed)} people added")


def by_person(gt: Boxes) -> dict[int, dict[int, np.ndarray]]:
    """Boxes x, y, w, h of each person by frame, from 0."""
    people: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    for frame, person, box in zip(gt.frame, gt.track_id, gt.xywh, strict=True):
        people[int(person)][int(frame) - 1] = box
    return people


def most_like(track: ElementTree.Element, people: dict[int, dict[int, np.ndarray]]) -> int | None:
    """The person whom most of a track's boxes show; None if most show nobody."""
    votes: dict[int | None, int] = defaultdict(int)
    for box in track:
        if box.get("outside") == "1":
            continue
        left, top, right, bottom = (float(box.get(s, "0")) for s in ("xtl", "ytl", "xbr", "ybr"))
        there = {p: boxes for p, boxes in people.items() if int(box.get("frame", "0")) in boxes}
        nearest, overlap = None, SAME_PERSON
        for person, boxes in there.items():
            drawn = boxes[int(box.get("frame", "0"))][None]
            shared = iou_matrix(np.array([[left, top, right - left, bottom - top]]), drawn)
            if shared[0, 0] > overlap:
                nearest, overlap = person, shared[0, 0]
        votes[nearest] += 1
    return max(votes, key=lambda person: votes[person]) if votes else None


def draw(track: ElementTree.Element, boxes: dict[int, np.ndarray], last: int) -> None:
    """Give a track these boxes, and end it where the person is out of sight."""
    for frame, (x, y, w, h) in sorted(boxes.items()):
        add_box(track, frame, "0", (x, y, x + w, y + h))
        if frame < last and frame + 1 not in boxes:
            add_box(track, frame + 1, "1", (x, y, x + w, y + h))


def add_box(
    track: ElementTree.Element, frame: int, outside: str, corners: tuple[float, ...]
) -> None:
    """Add a keyframe."""
    sides = zip(("xtl", "ytl", "xbr", "ybr"), (f"{v:.2f}" for v in corners), strict=True)
    ElementTree.SubElement(
        track, "box", frame=str(frame), keyframe="1", outside=outside, occluded="0", **dict(sides)
    )


def score(folder: Path, truth: Sequence, weights: str, name: str) -> float:
    """HOTA in percent of the held-out video with some weights."""
    run = f"{folder}/run-{name}"
    vsdmot("track", f"{folder}/held-out", run, f"weights={weights}", *HERE)
    vsdmot("export", run, f"{run}-files", "format=motchallenge")
    tracks = read_results(f"{run}-files/{truth.name}.txt", truth.length)
    return tracking_scores({truth.name: (truth.gt, tracks)})[1].hota


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
