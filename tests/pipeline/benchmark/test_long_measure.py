"""Long recordings: what they show, who is counted, and passes that share the encoding."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.measure_long import evidence_table, look_table, reid_table, rule_table, split_table
from pipeline.benchmark.long import recording as recordings
from pipeline.benchmark.long.encode_once import Pass, track_together
from pipeline.benchmark.long.evidence_measure import (
    TERMS,
    evidence_rows,
    fitted,
    pairs_of,
    rule_rows,
)
from pipeline.benchmark.long.looks_measure import KINDS, Compared, look_rows
from pipeline.benchmark.long.people import by_visit, first_followed, owners, visits
from pipeline.benchmark.long.recording import there_and_back, write_blackouts, write_recording
from pipeline.benchmark.long.reid_measure import Tracked, reid_row, returns, tracked
from pipeline.benchmark.long.split_measure import boxes_of, crossings, kept, split_rows
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import MotError, read_sequence
from pipeline.datasets.synthetic import make_synthetic
from pipeline.stitching.looks import Looks
from pipeline.tracking.track_video import TrackSettings, open_tracker
from pipeline.video.decode import iterate_frames
from tests.pipeline.stitching.crowd import DIM, Walker, columns, glance_at, memory
from tests.pipeline.video.test_decode import look

BOX, OTHER = [10, 10, 20, 40], [90, 10, 20, 40]


def boxes(*rows):
    """Boxes of (first frame, last frame, id, box)."""
    frame = np.concatenate([np.arange(first, last + 1) for first, last, _, _ in rows])
    counts = [last - first + 1 for first, last, _, _ in rows]
    ids = np.repeat([i for _, _, i, _ in rows], counts)
    return Boxes.of(frame, ids, np.repeat([box for *_, box in rows], counts, axis=0))


def test_pictures_go_there_and_back_without_a_jump():
    assert there_and_back(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert there_and_back(1, 3).tolist() == [0, 0, 0]


def test_a_person_is_new_after_an_absence():
    gt = boxes((1, 10, 5, BOX), (14, 20, 5, BOX), (40, 45, 5, BOX), (3, 4, 6, OTHER))
    assert list(visits(gt, 3)) == [(5, 1, 20), (5, 40, 45), (6, 3, 4)]
    assert sorted(set(by_visit(gt, 3).track_id.tolist())) == [1, 2, 3]
    assert len(by_visit(gt, 3)) == len(gt)


def test_who_crosses_a_seam_is_counted_by_the_tracks_of_both_windows():
    truth = boxes((1, 30, 1, BOX), (1, 30, 2, OTHER), (1, 12, 3, [200, 0, 9, 9]))
    left = boxes((1, 19, 7, BOX), (1, 19, 8, OTHER), (1, 12, 4, [200, 0, 9, 9]))
    right = boxes((12, 30, 7, BOX), (17, 30, 9, OTHER))
    assert crossings(truth, left, right, 20) == (1, 2)
    # Whom only one of the windows follows there, nobody can join.
    assert crossings(truth, left, right[right.track_id == 7], 20) == (1, 1)
    whole = boxes((1, 30, 7, BOX), (1, 19, 8, OTHER), (22, 30, 9, OTHER))
    assert kept(truth, whole, 20) == (1, 2)


def test_a_track_belongs_to_whom_it_follows_in_most_of_its_boxes():
    truth = boxes((1, 10, 1, BOX), (1, 10, 2, OTHER))
    tracks = boxes((1, 6, 7, BOX), (7, 10, 7, OTHER), (1, 4, 8, OTHER), (5, 8, 8, [400, 0, 9, 9]))
    assert owners(truth, tracks) == {7: 1}
    assert first_followed(truth, tracks, range(8, 0, -1)) == {2: 7, 1: 7}


def test_who_comes_back_is_counted_if_a_track_is_there_on_both_sides():
    truth = boxes((1, 20, 1, BOX), (60, 80, 1, BOX), (1, 20, 2, OTHER), (60, 80, 2, OTHER))
    tracks = boxes((1, 20, 7, BOX), (62, 80, 8, BOX), (1, 20, 9, OTHER))
    assert returns(truth, tracks, 20) == [(7, 8)]
    assert returns(truth, tracks, 50) == []


def test_pairs_are_compared_by_rank_and_by_false_ones():
    compared = Compared(np.array([0.9, 0.5, 0.1]), np.array([0.0, 0.2, 0.3, 0.4]))
    assert compared.area == pytest.approx((4 + 4 + 1) / 12)
    assert compared.found == pytest.approx(2 / 3)
    assert np.isnan(Compared(np.zeros(0), np.zeros(2)).area)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    root = make_synthetic(tmp_path_factory.mktemp("long"), sequences=2, frames=30, people=3)
    return [read_sequence(root / f"SYNTH-0{n}") for n in (1, 2)]


@pytest.fixture
def stretches(monkeypatch):
    """Pictures so small, and stretches so short, that a recording that has all is made quickly."""
    monkeypatch.setattr(recordings, "_WIDTH", 96)
    monkeypatch.setattr(recordings, "_HEIGHT", 64)
    monkeypatch.setattr(recordings, "_STRETCH", 20)
    monkeypatch.setattr(recordings, "_BLACKOUTS", (4, 40))
    monkeypatch.setattr(recordings, "_AROUND", 2)
    monkeypatch.setattr(recordings, "_PLACES", 2)


def test_a_recording_shows_its_truth(sequences, stretches, tmp_path):
    recording = write_recording(sequences, 0.2, tmp_path / "a.mp4")
    pictures = [pixels for _, _, pixels in iterate_frames(look(recording.path))]
    assert len(pictures) == recording.frames == 120
    assert {p.shape for p in pictures} == {(64, 96, 3)}
    # The first of the two sequences begins the recording and ends it. Ids differ between them.
    parts = np.split(recording.gt.track_id, np.searchsorted(recording.gt.frame, (19, 79)))
    first, second, again = (set(part.tolist()) for part in parts)
    assert again >= first and not first & second
    scale = min(96 / sequences[0].width, 64 / sequences[0].height)
    np.testing.assert_allclose(recording.gt.at(1).xywh, sequences[0].gt.at(1).xywh * scale)


def test_a_sequence_goes_black_in_several_places(sequences, stretches, tmp_path):
    dark = []
    # The sequence is shown at 10 frames a second, and is too short for the second blackout.
    shown = len(range(0, 30, max(1, round(sequences[0].frame_rate / 10))))
    for recording in write_blackouts(sequences[0], tmp_path / "a.mp4"):
        pictures = [pixels for _, _, pixels in iterate_frames(look(recording.path))]
        assert len(pictures) == recording.frames == shown
        dark.append([n for n, p in enumerate(pictures) if p.mean() < 3])
        assert not set((recording.gt.frame - 1).tolist()) & set(dark[-1])
    assert [len(frames) for frames in dark] == [4] * len(dark)
    assert len({frames[0] for frames in dark}) == len(dark) > 0


def test_passes_that_share_the_encoding_give_the_rows_of_passes_alone(sequences, weights, tmp_path):
    recording = write_recording(sequences[:1], 0.1, tmp_path / "a.mp4")
    info = look(recording.path)
    settings = TrackSettings(str(weights), window=4)
    model = open_tracker(settings)
    spans = [(None, None), (None, 2.0), (1.4, None)]

    def passes():
        return [Pass(begin, end, Looks(model.config.dim)) for begin, end in spans]

    together, alone = passes(), passes()
    encoded = track_together(model, info, settings, together)
    each = [track_together(model, info, settings, [part]) for part in alone]
    assert encoded < sum(each)
    for a, b in zip(together, alone, strict=True):
        assert len(a.tracks()["track_id"]) > 0
        for name, column in a.tracks().items():
            np.testing.assert_array_equal(column, b.tracks()[name])
        np.testing.assert_array_equal(a.looks.records(), b.looks.records())


def test_measures_are_complete_and_start_from_one_pass(sequences, stretches, weights, tmp_path):
    settings = TrackSettings(str(weights))
    model = open_tracker(settings)
    recording = write_recording(sequences, 0.1, tmp_path / "a.mp4")
    rows = split_rows(model, recording, settings, (2,), 1.0)
    assert [row["windows"] for row in rows] == [1, 2]
    assert rows[0]["hota_lost"] == rows[0]["seams"] == 0 and rows[1]["seams"] == 1
    assert split_table(rows).row_count == 2
    passes = [tracked(model, recording, "a", settings)]
    rows = [reid_row(passes, gap_s) for gap_s in (0.0, 30.0)]
    assert rows[0]["joins"] == rows[0]["joins_wrong"] == 0
    assert rows[1]["id_switches"] <= rows[0]["id_switches"]
    assert reid_table(rows).row_count == 2


def test_evidence_that_tells_people_apart_has_the_greatest_weight():
    draw = np.random.default_rng(3)
    same = draw.random(2000) < 0.2
    terms = draw.normal(size=(2000, len(TERMS)))
    terms[:, 1] += 2 * same
    terms[:, 3] += 1 * same
    weights = fitted(terms, same)
    assert weights[1] > weights[3] > 0.5
    assert abs(weights[[0, 2]]).max() < 0.2


def test_evidence_is_asked_of_pairs_that_follow_each_other():
    # Three people, each of whom is away for two seconds and has another track afterwards.
    walkers = [Walker(1 + n, 0, 20, (90.0 * n, 0.0)) for n in range(3)]
    walkers += [Walker(4 + n, 40, 60, (90.0 * n, 0.0)) for n in range(3)]
    rows = columns([row for walker in walkers for row in walker.rows()])
    looks = Looks(DIM)
    looks.add(rows, None)
    for seed in range(8):
        ids = (1, 2, 3) if seed < 4 else (4, 5, 6)
        looks.add(columns([]), glance_at(ids, [memory((i - 1) % 3, seed) for i in ids]))
    tracks = boxes_of(rows)
    truth = Boxes.of(tracks.frame, (tracks.track_id - 1) % 3, tracks.xywh)
    one = Tracked("a", truth, tracks, looks, [(1, 4), (2, 5), (3, 6)])
    terms, same = pairs_of(one, 30.0)
    # Far places are not asked for.
    assert same.sum() == 3 and 3 < len(same) <= 9
    assert (terms[same, 0] > 0.8).all() and (terms[same, 2:] > -1).all()
    assert len(pairs_of(one, 1.0)[1]) == 0
    with pytest.raises(MotError, match="of 0 pairs of tracks 0 are of one person"):
        evidence_rows([one], 1.0)
    rows = evidence_rows([one], 30.0)
    assert [row["term"] for row in rows] == [*TERMS, "all"]
    assert rows[-1]["area"] == 1
    assert rows[0]["weight"] + rows[1]["weight"] == pytest.approx(1)
    assert evidence_table(rows).row_count == 5
    rules = rule_rows([one], 30.0)
    assert rules[0]["right"] == 3
    assert not any(row["wrong"] or row["of_nobody"] for row in rules)
    assert rule_table(rules).row_count == len(rules)


def test_a_degraded_recording_has_the_truth_of_a_clean_one(sequences, stretches, tmp_path):
    clean, poor = (
        [
            (recording.frames, recording.gt, next(iterate_frames(look(recording.path)))[2])
            for recording in write_blackouts(sequences[0], tmp_path / "a.mp4", degraded)
        ]
        for degraded in (False, True)
    )
    for (frames, gt, picture), (poor_frames, poor_gt, poor_picture) in zip(
        clean, poor, strict=True
    ):
        assert frames == poor_frames
        np.testing.assert_array_equal(gt.xywh, poor_gt.xywh)
        assert abs(picture.astype(int) - poor_picture).mean() > 1


def test_looks_are_compared_between_seconds(sequences, weights):
    settings = TrackSettings(str(weights))
    model = open_tracker(settings)
    whole = Pass(None, None, Looks(model.config.dim))
    track_together(model, look(sequences[0].video), settings, [whole])
    # What the student finds is taken for the truth, because it finds anything.
    sequence = replace(sequences[0], gt=boxes_of(whole.tracks()))
    rows = look_rows(model, [sequence], settings)
    assert rows[0]["pairs_same"] > 0
    assert all(0 <= rows[0][f"area_{kind}"] <= 1 for kind in KINDS)
    assert rows[2]["pairs_same"] == 0
    assert [row["gap_s"] for row in rows] == [1, 5, 30]
    assert look_table(rows).row_count == 3
