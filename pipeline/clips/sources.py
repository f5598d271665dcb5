"""Draws the sequence of a clip: first a source, then one of its sequences."""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.shards import ShardError, Shards, fits_any

_POWER = 0.75
_FAVOUR = 3.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Sequences to draw from, by source.

    Attributes:
        groups: numbers of the sequences of each source.
        upto: (sources,) cumulative weights; the last is 1.
    """

    groups: list[list[int]]
    upto: np.ndarray

    @classmethod
    def of(cls, shards: Shards, numbers: list[int], favoured: tuple[str, ...]) -> "Pool":
        """Pool of sequences; a source weighs its number of pictures to the power 3/4.

        A larger source has more to learn from, but less than in proportion. Favoured sources
        weigh three times as much.
        """
        groups: dict[str, list[int]] = {}
        frames: dict[str, int] = {}
        for number in numbers:
            sequence = shards.sequences[number]
            groups.setdefault(sequence.source, []).append(number)
            frames[sequence.source] = frames.get(sequence.source, 0) + len(sequence.frames)
        weights = np.array([frames[source] for source in groups], float) ** _POWER
        weights *= [_FAVOUR if fits_any(source, favoured) else 1.0 for source in groups]
        return cls(list(groups.values()), np.cumsum(weights) / max(1e-9, weights.sum()))

    def __bool__(self) -> bool:
        return bool(self.groups)

    def draw(self, random: np.random.Generator) -> int:
        """The number of a sequence."""
        place = int(np.searchsorted(self.upto, random.random(), side="right"))
        group = self.groups[min(place, len(self.groups) - 1)]
        return group[random.integers(len(group))]


class Sources:
    """Stills and videos to train on.

    Args:
        shards: of the sequences.
        numbers: sequences that may be drawn, at least one.
        stills: share of stills among the draws, if there are stills and videos.
        favoured: glob patterns of sources that are drawn more often.

    Raises:
        ShardError: a pattern fits no source.
    """

    def __init__(
        self, shards: Shards, numbers: list[int], stills: float, favoured: tuple[str, ...] = ()
    ) -> None:
        names = sorted({shards.sequences[i].source for i in numbers})
        for pattern in favoured:
            if not any(fits_any(name, [pattern]) for name in names):
                raise ShardError(
                    f"favoured: {pattern!r} fits no source to train on in {shards.folder}; there "
                    f"are {', '.join(names)}"
                )
        still = [i for i in numbers if shards.sequences[i].fps == 0]
        video = [i for i in numbers if shards.sequences[i].fps > 0]
        self._stills = Pool.of(shards, still, favoured)
        self._videos = Pool.of(shards, video, favoured)
        self._share = stills

    def draw(self, random: np.random.Generator) -> int:
        """The number of a sequence."""
        first, other = self._stills, self._videos
        if random.random() >= self._share:
            first, other = other, first
        return (first or other).draw(random)
