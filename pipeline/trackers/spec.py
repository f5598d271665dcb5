"""Names of trackers in a benchmark, and their meaning.

| name | tracker |
|---|---|
| `student`, or a name out of `students` | a student with its own weights |
| `student:gate_off` | an ablation of it (`pipeline.trackers.variants`) |
| `student:fast` | a student as `vsdmot track model.precision=fast` runs it on a CPU |
| `bytetrack+student`, short `bytetrack` | a peer on the detections of a student |
| `bytetrack+yolox` | a peer on those of a detector out of `detectors` |
| `bytetrack+det` | a peer on the sequence's own det/det.txt, which are of the clean video |
| `NAME@FILE.safetensors` | a student with these weights |
| `NAME@FOLDER` | result files of another tracker, FOLDER/SEQUENCE.txt, of the clean video |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.trackers.peers import PEERS
from pipeline.trackers.variants import FULL, RANDOM, VARIANTS

FAST = "fast"
STUDENT, DETECTOR, PUBLIC, FILES = "student", "detector", "public", "files"
_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")


class SpecError(ValueError):
    """A tracker's name is unknown; the message lists known ones."""


@dataclass(frozen=True, slots=True)
class TrackerSpec:
    """One tracker of the table.

    Attributes:
        name: as in the table.
        kind: source of the boxes: "student", "detector", "public" (det.txt) or "files".
        path: weights, detector or folder; "" for det.txt.
        variant: of a student: one of `VARIANTS`, or `FAST`.
        peer: tracker of the detections; "" if the source tracks itself.
    """

    name: str
    kind: str
    path: str
    variant: str = FULL
    peer: str = ""

    @property
    def source(self) -> TrackerSpec:
        """The tracker whose detections are used: without its peer."""
        if not self.peer:
            return self
        return TrackerSpec(self.name.partition("+")[2], self.kind, self.path, self.variant)

    @property
    def tracks(self) -> bool:
        """Whether it gives tracks, not detections alone."""
        return bool(self.peer) or self.kind in (STUDENT, FILES)

    @property
    def random(self) -> bool:
        """Whether its output on the same pixels depends on a seed."""
        return self.variant == RANDOM


def pairs(items: Sequence[str], setting: str) -> dict[str, str]:
    """Parse NAME@PATH entries into paths by name."""
    found = {}
    for item in items:
        name, at, path = item.partition("@")
        if not (at and path and _NAME.match(name)):
            raise SpecError(f"{setting}: {item!r}; expected NAME@PATH, NAME of letters and digits")
        found[name] = path
    return found


def parse_trackers(
    names: Sequence[str], students: Mapping[str, str], detectors: Mapping[str, str]
) -> list[TrackerSpec]:
    """Parse names of trackers, each once; `students` and `detectors` are paths by name.

    Raises:
        SpecError: A name is unknown.
    """
    found: dict[str, TrackerSpec] = {}
    for name in names:
        spec = _parse(name, students, detectors)
        found.setdefault(spec.name, spec)
    return list(found.values())


def _parse(name: str, students: Mapping[str, str], detectors: Mapping[str, str]) -> TrackerSpec:
    name, at, path = name.partition("@")
    if at and Path(path).is_dir():
        if not _NAME.match(name):  # it becomes part of file names
            raise SpecError(
                f"{name}: a name is of letters, digits and _ . - alone; known: NAME@FOLDER"
            )
        return TrackerSpec(name, FILES, path)
    if at:
        students = {**students, re.split(r"[+:]", name)[-1 if "+" in name else 0]: path}
    if name in PEERS:
        name = f"{name}+{next(iter(students))}"
    peer, plus, source = name.rpartition("+")
    if plus and peer not in PEERS:
        raise SpecError(f"{name}: unknown peer {peer!r}; known: {', '.join(PEERS)}")
    base, _, variant = source.partition(":")
    if base in students:
        variant = variant or FULL
        if variant not in (*VARIANTS, FAST):
            variants = ", ".join((*VARIANTS[1:], FAST))
            raise SpecError(f"{name}: unknown variant; known: {variants}")
        shown = name.replace(f":{FULL}", "")
        return TrackerSpec(shown, STUDENT, students[base], variant, peer)
    if peer and not variant and source in detectors:
        return TrackerSpec(name, DETECTOR, detectors[source], peer=peer)
    if peer and source == "det":
        return TrackerSpec(name, PUBLIC, "", peer=peer)
    known = [*students, *(f"{PEERS[0]}+{d}" for d in (*students, *detectors, "det"))]
    raise SpecError(f"unknown tracker {name!r}; known are, for example, {', '.join(known)}")
