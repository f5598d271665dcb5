"""Parts of what a student sees, taken from the clean picture: what a perfect branch would give.

A student is measured on the degraded picture, but one part of its percept is that of the clean
one. The score is what the student would have if degradation did not reach this part. So it bounds
what distillation of the part can gain: a teacher of the clean picture asks for no more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from model.net.config import STRIDES
from model.track.frames import Percept

Part = Literal["semantics", "stride8", "stride16", "stride32", "maps"]


def with_clean(percept: Percept, clean: Percept, part: Part) -> Percept:
    """A percept with one part of another one.

    Args:
        percept: of N degraded pictures.
        clean: of the same pictures without degradation.
        part: semantics: semantic map and scene vector. strideS: the encoder's map of this stride.
            maps: all maps of the encoder.
    """
    if part == "semantics":
        return replace(percept, semantic_map=clean.semantic_map, scene=clean.scene)
    taken = {f"stride{stride}" for stride in STRIDES} if part == "maps" else {part}
    levels = zip(STRIDES, percept.visual, clean.visual, strict=True)
    maps = (other if f"stride{stride}" in taken else own for stride, own, other in levels)
    return replace(percept, visual=tuple(maps))
