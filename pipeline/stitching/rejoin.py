"""People who come back after their track has ended: the new track gets the old id."""

from __future__ import annotations

from pipeline.stitching.appearance import appearances
from pipeline.stitching.gaps import GapRule, join_over_gaps
from pipeline.stitching.looks import Looks

# Only where the evidence is strong. `vsdmot measure what=evidence` counts right and wrong joins by
# the rule on training sequences, `what=reid` those that this one makes.
_STRONG = GapRule(evidence=0.35, lead=0.15)


def rejoin(looks: Looks, max_gap_s: float) -> dict[int, int]:
    """Ids of tracks that go on earlier ones: the id of the first of them, by that of the later.

    Tracks that are joined follow each other in time, so no id is in a frame twice, and nobody's id
    changes more often than before.

    Args:
        looks: Of the whole video.
        max_gap_s: Greatest time between two tracks of a person; 0 joins none.
    """
    if max_gap_s <= 0:
        return {}
    records = looks.records()
    views = appearances(records, looks.spread())
    earlier: dict[int, int] = {}
    joins = join_over_gaps(records, records, views, views, max_gap_s, _STRONG)
    # In the order of time, so that the id of the earlier track is known.
    for join in sorted(joins, key=lambda join: float(records["first_s"][join.begun])):
        ended = int(records["track_id"][join.ended])
        earlier[int(records["track_id"][join.begun])] = earlier.get(ended, ended)
    return earlier
