"""Training clips: functions of (seed, index), with boxes where people are, from the train half."""

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from jobs.loader_rate import main
from model.learn.clip_batch import Extent
from model.settings import build
from pipeline.clips.clips import Clips, collate_clips
from pipeline.clips.config import ClipConfig
from pipeline.clips.sources import Sources
from pipeline.clips.speed import REST, measure_clips
from pipeline.datasets.shards import (
    LabelledFrame,
    LabelledSequence,
    ShardError,
    Shards,
    ShardWriter,
    encode_picture,
)
from pipeline.training.batches import Stream, batches
from tests.training_parts import CLIPS, write_shards

SINGLE = replace(CLIPS, length=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return Shards(write_shards(tmp_path_factory.mktemp("shards"), val=6))


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("degrade_at", ["canvas", "camera"])
def test_a_clip_is_a_function_of_seed_and_index(shards, length, degrade_at):
    config = replace(CLIPS, length=length, degrade_at=degrade_at, paste=0.5)
    one, other = (Clips(shards, config, 4, batch=2, clean_scale=1) for _ in range(2))
    other.preload(threads=2)
    forgetful = Clips(shards, replace(config, memory_gb=0), 4, batch=2, clean_scale=1)
    for index in (0, 7, 3):
        item = one[index]
        same(item, other[index])
        same(item, forgetful[index])
    assert not torch.equal(one[0]["images"], Clips(shards, config, 5)[0]["images"])


def test_loader_processes_make_the_same_batches(shards):
    stream = Stream(Clips(shards, SINGLE, 4, batch=3), collate_clips)
    stream.items.preload(threads=1)
    for a, b in zip(
        batches(stream, (3,), 0, 3, loaders=0), batches(stream, (3,), 0, 3, loaders=2), strict=True
    ):
        assert torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes)


def test_nothing_of_the_val_half_is_drawn(shards):
    val = {shards.sequences[i].name for i in shards.of_split("val")}
    clips = Clips(shards, replace(SINGLE, stills=1.0, paste=1.0), 0)
    seen = {name for i in range(60) for name in str(clips[i]["names"]).split(" + ")}
    assert len(val) == 6 and not seen & val and len(seen) == 4
    donors = {donor.sequence for group in clips._donors for donor in group}
    assert donors and not donors & set(shards.of_split("val"))


def test_shards_without_a_train_half_are_refused(tmp_path):
    data, _ = encode_picture(np.zeros((40, 40, 3), np.uint8), 640)
    writer = ShardWriter(tmp_path, ["person"])
    frame = LabelledFrame("a.webp", [], [], [], [])
    still = LabelledSequence("a", "a", "val", 0.0, True, "seen", False, [frame])
    writer.add(still, {"a.webp": data})
    writer.close()
    with pytest.raises(ShardError, match="no frame of split train"):
        Clips(Shards(tmp_path), SINGLE, 0)


@pytest.fixture
def two_sources(tmp_path):
    """Shards of 90 stills of one source, and 10 of another."""
    data, _ = encode_picture(np.zeros((40, 40, 3), np.uint8), 640)
    writer = ShardWriter(tmp_path, ["person"])
    for source, count in (("many", 90), ("few", 10)):
        for i in range(count):
            frame = LabelledFrame("a.webp", [], [], [], [])
            still = LabelledSequence(f"{i}", source, "train", 0.0, True, "seen", False, [frame])
            writer.add(still, {"a.webp": data})
    writer.close()
    return Shards(tmp_path)


@pytest.mark.parametrize(("favoured", "factor"), [((), 1), (("f*",), 1 / 3), (("*",), 1)])
def test_large_sources_are_drawn_more_often_but_less_than_in_proportion(
    two_sources, favoured, factor
):
    sources = Sources(two_sources, list(range(100)), 0.0, favoured)
    random = np.random.default_rng(0)
    drawn = [two_sources.sequences[sources.draw(random)].source for _ in range(4000)]
    ratio = 9**0.75 * factor
    assert drawn.count("many") / 4000 == pytest.approx(ratio / (ratio + 1), abs=0.03)


def test_a_favoured_source_that_is_not_there_is_named(two_sources):
    with pytest.raises(ShardError, match=r"'photo\*' fits no source .* there are few, many"):
        Clips(two_sources, replace(SINGLE, favoured=("few", "photo*")), 0)


def test_views_of_small_and_of_large_people_are_not_more_than_all():
    with pytest.raises(ValueError, match=r"clips.small=0.8 and clips.large=0.3 .* at most 1"):
        ClipConfig(small=0.8)


@pytest.mark.parametrize("what", ["single", "mosaic", "clip", "camera"])
def test_boxes_follow_the_rectangle(shards, what):
    plain = replace(SINGLE, height=128, width=192, degraded=0.0, paste=0.0, small=0.0)
    config = {
        "single": replace(plain, mosaic=0.0),
        "mosaic": replace(plain, mosaic=1.0),
        "clip": replace(plain, length=3),
        "camera": replace(plain, length=2, degrade_at="camera"),
    }[what]
    clips, checked = Clips(shards, config, seed=5), 0
    for index in range(40):
        clip = clips[index]
        for t in range(config.length):
            image = clip["images"][t].float()
            for g in range(config.objects):
                if clip["ids"][t, g] < 0 or clip["ignore"][t, g]:
                    continue
                x1, y1, x2, y2 = (int(v) for v in clip["boxes"][t, g].round())
                inner = image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
                if not inner.numel():
                    continue
                checked += 1
                assert float(inner.std(dim=(1, 2)).mean()) < 12, "of one colour"
                # Beside it, where there is a beside, it is darker.
                height, width = clip["valid"][t].tolist()
                if x1 > 6 and what != "mosaic":
                    assert inner.mean() > image[:, y1 + 2 : y2 - 2, x1 - 5 : x1 - 2].mean()
                assert x2 <= width and y2 <= height
    assert checked > 30


def test_mosaics_have_four_pictures_whose_people_differ(shards):
    clips = Clips(shards, replace(SINGLE, mosaic=1.0, paste=0.0), 0)
    for index in range(10):
        item = clips[index]
        ids = item["ids"][0][item["ids"][0] >= 0].tolist()
        assert len(set(ids)) == len(ids)
        assert len(str(item["names"]).split(" + ")) == 4
        assert item["valid"].tolist() == [[64, 96]]


def test_what_is_beside_the_picture_is_black_and_not_valid(shards):
    clips = Clips(shards, replace(CLIPS, degraded=1.0), 0)
    narrower = 0
    for index in range(20):
        item = clips[index]
        height, width = item["valid"][0].tolist()
        assert not item["images"][..., height:, :].any() and not item["images"][..., width:].any()
        narrower += (height, width) != (64, 96)
    assert narrower > 3


def test_a_batch_has_one_canvas_and_batches_have_several(shards):
    config = replace(SINGLE, heights=(64, 160))
    clips = Clips(shards, config, 1, batch=4)
    sizes = [tuple(clips[i]["images"].shape[-2:]) for i in range(80)]
    for start in range(0, 80, 4):
        assert len(set(sizes[start : start + 4])) == 1
    assert len(set(sizes)) >= 3 and set(sizes) <= set(config.canvases())


def test_canvases_keep_the_proportions():
    config = ClipConfig(height=256, width=416, heights=(224, 448))
    canvases = config.canvases()
    assert canvases[0] == (224, 352) and canvases[1] == (256, 416) and canvases[-1] == (448, 736)
    assert all(abs(w / h - 416 / 256) < 0.07 for h, w in canvases)
    assert ClipConfig(height=256, width=416).canvases() == [(256, 416)]


def test_a_batch_is_padded_to_the_most_objects_in_it(shards):
    clips = Clips(shards, replace(SINGLE, mosaic=0.0, paste=0.0), 0)
    items = [clips[i] for i in range(12)]
    assert collate_clips(items).boxes.shape[2] == 1
    empty = [i for i in items if not (i["ids"] >= 0).any()]
    both = collate_clips([*empty, *items][:6])
    assert both.boxes.shape[2] == 1
    crowd = Clips(shards, replace(SINGLE, mosaic=1.0, paste=0.0), 0)
    batch = collate_clips([crowd[i] for i in range(8)])
    count = (batch.ids >= 0).sum(-1)
    assert batch.boxes.shape[2] == int(count.max()) > 1


def test_too_many_objects_give_up_ignored_ones_first(tmp_path):
    data, _ = encode_picture(np.full((200, 200, 3), 90, np.uint8), 640)
    boxes = [[10 * i, 20, 8, 100] for i in range(16)]
    frame = LabelledFrame("a", boxes, list(range(16)), [0] * 16, [i % 2 == 0 for i in range(16)])
    writer = ShardWriter(tmp_path, ["person"])
    still = LabelledSequence("a", "a", "train", 0.0, True, "seen", False, [frame])
    writer.add(still, {"a": data})
    writer.close()
    clips = Clips(Shards(tmp_path), replace(SINGLE, objects=4, mosaic=0.0, paste=0.0), 0)
    for index in range(10):
        item = clips[index]
        assert int((item["ids"] >= 0).sum()) <= 4
        if int((item["ids"] >= 0).sum()) == 4:
            assert int(item["ignore"].sum()) < 4


def test_boxes_say_what_they_show_of_a_person(shards):
    for share, extent in ((1.0, Extent.SEEN), (0.0, Extent.WHOLE)):
        config = replace(SINGLE, stills=share, paste=0.0)
        batch = collate_clips([Clips(shards, config, 0)[i] for i in range(8)])
        given = batch.ids >= 0
        assert given.any() and (batch.extent[given] == extent).all()
        assert not batch.extent[~given].any()


def test_severity_is_known_of_views_degraded_at_the_camera_alone(shards):
    config = replace(CLIPS, degraded=0.5, kinds=("noise", "haze"))
    canvas = [Clips(shards, config, 0)[i]["severity"] for i in range(10)]
    assert all((s == -1).all() for s in canvas)
    at_camera = Clips(shards, replace(config, degrade_at="camera"), 0)
    camera = torch.cat([at_camera[i]["severity"] for i in range(30)])
    assert (camera == 0).any() and (camera > 0).any() and (camera >= 0).all()


def test_clean_frames_are_those_before_degrading(shards):
    poor = Clips(shards, replace(CLIPS, degraded=1.0), 0, clean_scale=1)
    item = poor[0]
    assert item["clean"].shape == item["images"].shape
    assert not torch.equal(item["clean"], item["images"])
    good = Clips(shards, replace(CLIPS, degraded=0.0), 0, clean_scale=1)
    assert torch.equal(good[0]["clean"], good[0]["images"])
    assert "clean" not in Clips(shards, CLIPS, 0)[0]


@pytest.fixture
def damaged(shards, tmp_path):
    """The stills, two of which cannot be read."""
    writer = ShardWriter(tmp_path, shards.classes)
    for number in (1, 2, 3, 4):
        still = shards.sequences[number]
        data = shards.encoded(number, 0)
        name = still.frames[0].file.split("/")[1]
        still = replace(still, frames=[replace(still.frames[0], file=name)])
        writer.add(still, {name: data if number > 2 else data[: len(data) // 3]})
    writer.close()
    return Shards(tmp_path)


def test_a_picture_that_cannot_be_read_is_named_once_and_another_drawn(damaged):
    config = replace(SINGLE, paste=0.0, mosaic=0.0)
    clips = Clips(damaged, config, 0, batch=8)
    items = [clips[i] for i in range(24)]
    assert {item["names"] for item in items} == {"still-2", "still-3"}
    problems = [line for item in items for line in item["problems"]]
    assert len(problems) == 2, "each once"
    assert all(re.search(r"shard-000\.zip: 00000[01]/.*: not a readable", p) for p in problems)
    batch = collate_clips(items)
    assert set(batch.problems) == set(problems)
    # Where it starts, and what it has seen before, makes no difference.
    again = Clips(damaged, config, 0, batch=8)
    assert again.preload(threads=2) == sorted(problems)
    for index in reversed(range(24)):
        assert torch.equal(again[index]["images"], items[index]["images"])


def test_shards_of_which_nothing_can_be_read_are_an_error(tmp_path):
    writer = ShardWriter(tmp_path, ["person"])
    frame = LabelledFrame("a", [], [], [], [])
    writer.add(
        LabelledSequence("a", "a", "train", 0.0, True, "seen", False, [frame]), {"a": b"nothing"}
    )
    writer.close()
    with pytest.raises(ShardError, match=r"not a readable picture.*19 other draws failed too"):
        Clips(Shards(tmp_path), SINGLE, 0)[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 100}, "height: 100 was given, allowed is .* a multiple of 32"),
        ({"width": 0}, "width: 0 was given, allowed is .* 32 or more"),
        ({"heights": (224, 192)}, r"clips\.heights: \[224, 192\] was given, \[LEAST, GREATEST\]"),
        ({"heights": (230, 448)}, r"heights: \[230, 448\] was given"),
        ({"mosaic": 1.5}, "mosaic: 1.5 was given, allowed is a number, 0 to 1"),
        ({"length": 0}, "length: 0 was given, allowed is a whole number, 1 or more"),
        ({"memory_gb": -1.0}, "memory_gb: -1.0 was given"),
        ({"degrade_at": "sensor"}, "degrade_at: sensor was given, .* one of canvas, camera"),
        ({"kinds": ()}, r"kinds: \[\] was given, allowed is a list, not empty, each one of noise"),
        ({"kinds": ("rain",)}, r"kinds: \[\"rain\"\] was given"),
        ({"kinds": ("codec",)}, r"codec takes too long for degrade_at=canvas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ClipConfig(**values)


def test_settings_survive_json():
    config = ClipConfig(heights=(224, 448), kinds=("noise",))
    assert build(ClipConfig, json.loads(json.dumps(asdict(config)))) == config
    assert ClipConfig(kinds=("codec",), degrade_at="camera").kinds == ("codec",)


@pytest.mark.parametrize("degrade_at", ["canvas", "camera"])
def test_the_measure_of_speed_tells_its_parts_apart(shards, degrade_at):
    config = replace(CLIPS, degraded=1.0, degrade_at=degrade_at)
    speed = measure_clips(Clips(shards, config, 0), items=12, batch=4)
    assert sum(speed.shares.values()) == pytest.approx(1)
    assert {"cutting views", "degrading", "to tensors", REST} <= speed.shares.keys()
    assert all(share > 0 for part, share in speed.shares.items())
    assert min(speed.first, speed.again, speed.collate) > 0


def test_the_command_says_what_clips_cost(shards, capsys):
    settings = ["height=64", "width=96", "items=6", "batch=2", "lengths=[1, 2]"]
    assert main([f"shards={shards.folder}", *settings]) == 0
    said = capsys.readouterr().out
    assert "clips of 1" in said and "clips of 2" in said
    assert re.search(r"frames/s\s+│ \d+\s+│ \d+", said) and "cutting views" in said
    with pytest.raises(SystemExit) as leaving:
        main([f"shards={shards.folder}", "height=100"])
    assert leaving.value.code == 1
    assert "height: 100 was given" in capsys.readouterr().err
