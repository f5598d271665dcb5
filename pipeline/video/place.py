"""A place in the decoding of a video: all that is needed to go on exactly after a frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from pipeline.video.clock import ClockState
from pipeline.video.cuts import CutState
from pipeline.video.errors import PlaceLost
from pipeline.video.sampling import FilterState
from pipeline.video.still import StillState

_FORMAT = 1  # of packed states


class Progress(NamedTuple):
    """How far decoding has come, between two frames.

    Attributes:
        decoded: frames so far, as `Decoder.decoded`.
        damaged: damaged packets so far, as `Decoder.damaged`.
        clock: decides the next times.
        interval: of the last frame in the grid of sampling; -1 before the first, or without grid.
        fingerprint: of all pictures given so far, see `pipeline.video.fingerprint`.
    """

    decoded: int
    damaged: int
    clock: ClockState
    interval: int
    fingerprint: int


class Anchor(NamedTuple):
    """A key frame, and the state in which decoding came to it.

    Attributes:
        pts: timestamp of its packet in ticks.
        dts: timestamp of decoding; None if it has none.
        position: byte of the file at which its packet begins; None if the container does not tell.
        packets: packets of the stream before it, in the order of decoding; None if not known.
        filter: state before its packet; None without sampling.
        progress: before its frame.
    """

    pts: int
    dts: int | None
    position: int | None
    packets: int | None
    filter: FilterState | None
    progress: Progress


class Place(NamedTuple):
    """The place of a `Decoder` after a frame that it gave.

    Attributes:
        pts: timestamp of the frame in ticks, None if it has none.
        progress: after the frame.
        anchor: a key frame before, from which decoding is repeated; None is the start of the file.
        start_s: where the decoder was told to begin, in seconds of video; None at the start.
    """

    pts: int | None
    progress: Progress
    anchor: Anchor | None
    start_s: float | None


@dataclass(frozen=True, slots=True)
class DecodeState:
    """Where a `FrameStream` is after a frame. Nobody changes its arrays.

    Attributes:
        place: of its decoder.
        still: of its detector of still frames; None without one.
        cuts: of its detector of cuts.
    """

    place: Place
    still: StillState | None = None
    cuts: CutState | None = None

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays by name, and the rest as values that JSON can hold."""
        arrays: dict[str, np.ndarray] = {}
        values: dict[str, Any] = {"format": _FORMAT, "place": _plain(self.place)}
        if self.still is not None:
            still = asdict(self.still)
            for name in ("reference", "noise"):
                arrays[f"still.{name}"] = still.pop(name)
            values["still"] = still
        if self.cuts is not None:
            arrays["cuts.reference"] = self.cuts.reference
            values["cuts"] = {"alike": self.cuts.alike}
        return arrays, values

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> Self:
        """Return the state that was packed.

        Raises:
            PlaceLost: it has another format, or something is missing.
        """
        if values.get("format") != _FORMAT:
            raise PlaceLost(
                f"the saved state of decoding has format {values.get('format')}, and this version "
                f"reads format {_FORMAT}; track the video from its start"
            )
        try:
            still = values.get("still")
            if still is not None:
                reference, noise = arrays["still.reference"], arrays["still.noise"]
                still = StillState(reference=reference, noise=noise, **still)
            cuts = values.get("cuts")
            if cuts is not None:
                cuts = CutState(reference=arrays["cuts.reference"], **cuts)
            return cls(_place(values["place"]), still, cuts)
        except (KeyError, TypeError, ValueError) as error:
            raise PlaceLost(
                f"the saved state of decoding is damaged ({type(error).__name__}: {error}); "
                "track the video from its start"
            ) from error


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return [list(item) for item in value] if isinstance(value, tuple) else value


def _place(values: dict[str, Any]) -> Place:
    anchor = values["anchor"]
    return Place(**values | {"progress": _progress(values["progress"]), "anchor": _anchor(anchor)})


def _progress(values: dict[str, Any]) -> Progress:
    return Progress(**values | {"clock": ClockState(**values["clock"])})


def _anchor(values: dict[str, Any] | None) -> Anchor | None:
    if values is None:
        return None
    state = values["filter"]
    if state is not None:
        first = tuple((int(cell), int(pts)) for cell, pts in state["first"])
        state = FilterState(**state | {"first": first})
    return Anchor(**values | {"filter": state, "progress": _progress(values["progress"])})
