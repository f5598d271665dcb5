"""A person who comes back gets the old id where the evidence is strong, and nobody else does."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stitching.looks import Looks
from pipeline.stitching.rejoin import rejoin
from tests.pipeline.stitching.crowd import DIM, Walker, columns, glance_at, in_clothes, memory


def looks_of(walkers, people, views=6):
    """Looks of some tracks, with the memories and clothes of the people that they follow."""
    looks = Looks(DIM)
    looks.add(columns([row for walker in walkers for row in walker.rows()]), None)
    ids = [walker.track_id for walker in walkers]
    for seed in range(views):
        shown = in_clothes([people[i] for i in ids], seed)
        memories = [memory(people[i], seed) for i in ids]
        looks.add(columns([]), glance_at(ids, memories, **shown))
    return looks


def test_who_comes_back_near_has_the_first_id():
    walkers = [
        Walker(1, 0, 20),
        Walker(2, 0, 99, (300.0, 0.0)),
        Walker(3, 40, 60),
        Walker(4, 80, 99),
    ]
    looks = looks_of(walkers, {1: 1, 2: 2, 3: 1, 4: 1})
    assert rejoin(looks, 5.0) == {3: 1, 4: 1}
    assert rejoin(looks, 1.0) == {}
    assert rejoin(looks, 0.0) == {}


def test_another_person_another_place_or_two_candidates_are_not_joined():
    first = Walker(1, 0, 20)
    bystander = Walker(2, 0, 99, (300.0, 0.0))
    people = {1: 1, 2: 2, 3: 1, 4: 1}
    again = Walker(3, 40, 60)
    assert rejoin(looks_of([first, bystander, again], people | {3: 7}), 5.0) == {}
    far = Walker(3, 40, 60, (5000.0, 0.0))
    assert rejoin(looks_of([first, bystander, far], people), 5.0) == {}
    twin = Walker(4, 41, 60, (40.0, 0.0))
    assert rejoin(looks_of([first, bystander, again, twin], people), 5.0) == {}


def test_a_track_without_a_view_is_not_joined():
    walkers = [Walker(1, 0, 20), Walker(2, 0, 99, (300.0, 0.0)), Walker(3, 21, 60)]
    assert rejoin(looks_of(walkers, {1: 1, 2: 2, 3: 1}, views=0), 5.0) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 80), st.integers(0, 30), st.integers(1, 3), st.integers(0, 200)),
        max_size=12,
    ),
    st.sampled_from([0.5, 3.0, 30.0]),
)
def test_tracks_of_one_id_follow_each_other(drawn, gap):
    walkers = [
        Walker(i, first, first + length, (float(x), 0.0))
        for i, (first, length, _, x) in enumerate(drawn, 1)
    ]
    people = {i: who for i, (_, _, who, _) in enumerate(drawn, 1)}
    earlier = rejoin(looks_of(walkers, people) if walkers else Looks(DIM), gap)
    assert not set(earlier) & set(earlier.values())
    by_id = {}
    for walker in sorted(walkers, key=lambda w: w.first):
        by_id.setdefault(earlier.get(walker.track_id, walker.track_id), []).append(walker)
    for name, tracks in by_id.items():
        assert tracks[0].track_id == name
        for before, after in pairwise(tracks):
            assert before.last < after.first
            assert after.first - before.last <= gap * 10 + 1e-6
    rows = [(f, earlier.get(i, i)) for w in walkers for f, i, _, _ in w.rows()]
    assert len(set(rows)) == len(rows)
