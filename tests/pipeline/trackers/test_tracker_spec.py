"""Names of trackers."""

import pytest

from pipeline.trackers.spec import FAST, SpecError, pairs, parse_trackers

STUDENTS, DETECTORS = {"student": "s.safetensors", "old": "o.safetensors"}, {"yolox": "y.onnx"}


def parse(*names):
    return parse_trackers(names, STUDENTS, DETECTORS)


def test_names_say_source_variant_and_peer():
    full, off, peer, seen, public = parse(
        "student", "old:gate_off", "bytetrack", "sort+yolox", "ocsort+det"
    )
    assert (full.kind, full.path, full.variant) == ("student", "s.safetensors", "full")
    assert (off.path, off.variant) == ("o.safetensors", "gate_off")
    assert parse("old:fast")[0].variant == FAST
    assert (peer.name, peer.source.name) == ("bytetrack+student", "student")
    assert (seen.kind, seen.source.name, seen.source.tracks) == ("detector", "yolox", False)
    assert public.kind == "public" and public.tracks


def test_weights_can_be_given_at_once_and_each_tracker_counts_once(tmp_path):
    (new,) = parse("new@n.safetensors", "new@n.safetensors")
    assert (new.name, new.path) == ("new", "n.safetensors")
    (off,) = parse("new:gate_off@n.safetensors")
    assert (off.name, off.path, off.variant) == ("new:gate_off", "n.safetensors", "gate_off")
    (given,) = parse(f"theirs@{tmp_path}")
    assert (given.kind, given.tracks) == ("files", True)
    assert pairs(["a@b"], "students") == {"a": "b"}


@pytest.mark.parametrize("name", ["studnt", "student:gate", "deepsort+student", "yolox", "sort+x"])
def test_a_name_that_says_nothing_is_refused(name):
    with pytest.raises(SpecError, match="known"):
        parse(name)


def test_a_pair_without_a_path_is_refused():
    with pytest.raises(SpecError, match="students: 'a'; expected NAME@PATH"):
        pairs(["a"], "students")
