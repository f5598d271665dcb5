"""Scores under degradations, and paired differences to a control with their intervals.

The bootstrap draws stills with replacement, as many of each source as there are; stills of one
camera are drawn together. Of sequences it draws whole ones. One drawing serves all series and all
conditions, so differences are paired.
Shapes: P pictures, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.benchmark.average_precision import COCO_IOUS
from pipeline.benchmark.degraded.pictures import (
    APART,
    POOR,
    SEQUENCES,
    STILLS,
    Picture,
    shown_under,
)
from pipeline.benchmark.detection_measure import MEAN, POOLED
from pipeline.benchmark.weighted_precision import Matches, average_precision
from pipeline.degrade.conditions import CLEAN, Condition

RESAMPLES = 1000
DEGRADED = "degraded"
"""Kind of the rows that are means over kinds; their severity is 0 if it is over severities too."""
POWER = 2.8
"""Standard errors in the smallest difference that a two-sided test at 5 % finds in 80 % of trials:
the sum of the normal quantiles at 0.975 and 0.8."""
_INTERVAL = (2.5, 97.5)

Array = np.ndarray[Any, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a score is taken: a mean over parts, each the pooled pictures of a source or more.

    Attributes:
        group, source: as in the rows.
        parts: indices of the pictures of each part.
        pictures: (R, P) how often each resample has each picture; None draws no pictures.
        sequences: (R, parts) how often each resample has each part; None draws no parts.
    """

    group: str
    source: str
    parts: list[list[int]]
    pictures: Array | None = None
    sequences: Array | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """AP50 and AP in percent, and AP50 of each resample, (R,); NaN without people."""

    ap50: float
    ap: float
    drawn: Array


def score_rows(
    pictures: Sequence[Picture],
    conditions: Sequence[Condition],
    names: Sequence[str],
    control: str,
    matches: Mapping[tuple[str, str], Matches],
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Scores of each series by group, source and condition.

    Args:
        pictures: those that are also shown degraded come first.
        conditions: clean and degraded ones.
        names: of the series.
        control: name of the series that the others are compared with.
        matches: by the names of series and condition, in the pictures shown under the condition.
        advance: called after each (series, condition).

    Returns:
        rows with `ap50` and `ap` in percent, None without people. Rows of other series than the
        control also have their `difference` in AP50, its 95 % interval from `low` to `high`, and
        `smallest`: the smallest true difference that would be seen with a power of 80 %.
    """
    every = places(pictures)
    scores: dict[tuple[str, str, str], dict[tuple[str, int], Score]] = {}
    for condition in conditions:
        groups = {picture.group for picture in shown_under(condition, pictures)}
        shown = [place for place in every if place.group in groups]
        for name in names:
            found = matches[name, condition.name]
            for place in shown:
                of = scores.setdefault((name, place.group, place.source), {})
                of[condition.kind, condition.severity] = place_score(found, place)
            advance()
    for of in scores.values():
        of |= _means(of)
    rows = []
    for place in every:
        members = [pictures[i] for part in place.parts for i in part]
        people = sum(map(_people, members))
        for name in names:
            base = scores[control, place.group, place.source]
            for (kind, severity), score in scores[name, place.group, place.source].items():
                row: Row = {"name": name, "group": place.group, "source": place.source}
                row |= {"kind": kind, "severity": severity}
                row |= {"pictures": len(members), "people": people}
                row |= {"ap50": _number(score.ap50), "ap": _number(score.ap)}
                compared = None if name == control else base[kind, severity]
                rows.append(row | _difference(score, compared))
    return rows


def places(pictures: Sequence[Picture]) -> list[Place]:
    """Where scores are taken in pictures, by group: as a whole, then by source."""
    groups: dict[str, dict[str, list[int]]] = {}
    for i, picture in enumerate(pictures):
        groups.setdefault(picture.group, {}).setdefault(picture.source, []).append(i)
    drawn = draw_pictures(pictures)
    found = []
    for group in (STILLS, SEQUENCES, POOR, APART):
        sources = groups.get(group, {})
        parts = list(sources.values())
        draws = drawn if group in (STILLS, POOR) else None
        if group == STILLS and parts:
            found.append(Place(group, POOLED, [[i for part in parts for i in part]], draws))
        with_people = [part for part in parts if any(_people(pictures[i]) for i in part)]
        if group == POOR and with_people:
            found.append(Place(group, MEAN, with_people, draws))
        if group == SEQUENCES and with_people:
            found.append(Place(group, MEAN, with_people, None, _counts(len(with_people))))
        found += [Place(group, source, [part], draws) for source, part in sources.items()]
    return found


def draw_pictures(pictures: Sequence[Picture]) -> Array:
    """How often each resample has each picture, (R, P).

    The pictures of each source are drawn with replacement, those of one camera together.
    """
    sources: dict[tuple[str, str], dict[tuple[str, int], list[int]]] = {}
    for i, picture in enumerate(pictures):
        alike = (picture.camera, -1) if picture.camera else ("", i)
        sources.setdefault((picture.group, picture.source), {}).setdefault(alike, []).append(i)
    drawn = np.zeros((RESAMPLES, len(pictures)), np.int32)
    for number, clusters in enumerate(sources.values()):
        counts = _counts(len(clusters), number)
        for cluster, members in enumerate(clusters.values()):
            drawn[:, members] = counts[:, cluster, None]
    return drawn


def _counts(items: int, stream: int = 0) -> Array:
    """How often each of some items is in each resample, (R, items)."""
    random = np.random.default_rng([stream, items])
    return random.multinomial(items, np.full(items, 1 / items), size=RESAMPLES)


def place_score(matches: Matches, place: Place) -> Score:
    """The score of one series under one condition."""
    fifty, every = [], []
    for part in place.parts:
        of = matches.of(part)
        once = np.ones((1, len(part)), int)
        drawn = once[:0] if place.pictures is None else place.pictures[:, part]
        fifty.append(average_precision(of, np.concatenate([once, drawn])))
        others = [average_precision(of, once, i)[0] for i in range(1, len(COCO_IOUS))]
        every.append(np.mean([fifty[-1][0], *others]))
    each = np.array(fifty)  # (parts, 1 + R)
    if place.sequences is None:
        drawn = each[:, 1:].mean(axis=0)
    else:
        drawn = place.sequences @ each[:, 0] / place.sequences.sum(axis=1)
    return Score(float(each[:, 0].mean()), float(np.mean(every)), drawn)


def _means(of: Mapping[tuple[str, int], Score]) -> dict[tuple[str, int], Score]:
    """Means over kinds, at each severity and over all (severity 0)."""
    degraded = {key: score for key, score in of.items() if key[0] != CLEAN}
    if not degraded:
        return {}
    found = {}
    for severity in sorted({severity for _, severity in degraded}):
        found[DEGRADED, severity] = _mean([s for (_, v), s in degraded.items() if v == severity])
    return found | {(DEGRADED, 0): _mean(list(degraded.values()))}


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        float(np.mean([score.ap50 for score in scores])),
        float(np.mean([score.ap for score in scores])),
        np.mean([score.drawn for score in scores], axis=0),
    )


def _difference(score: Score, control: Score | None) -> Row:
    row: Row = dict.fromkeys(("difference", "low", "high", "smallest"))
    if control is None:
        return row
    row["difference"] = _number(score.ap50 - control.ap50)
    drawn = score.drawn - control.drawn
    drawn = drawn[np.isfinite(drawn)]  # a resample may have nobody in it
    if len(drawn) > 1:
        low, high = np.percentile(drawn, _INTERVAL)
        row |= {
            "low": float(low),
            "high": float(high),
            "smallest": float(POWER * drawn.std(ddof=1)),
        }
    return row


def _people(picture: Picture) -> int:
    return int((~picture.people.ignored).sum())


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
