"""Pixels of clips: boxes lie on what they name, and views are degraded at the camera's size."""

from dataclasses import replace

from pipeline.clips.clips import Clips
from pipeline.datasets.shards import Shards
from tests.training_parts import (
    CLIPS,
)


def test_boxes_follow_the_rectangle_through_crops_and_flips(shards):
    clips = Clips(Shards(shards), replace(CLIPS, degraded=0.0, length=3), seed=5)
    checked = 0
    for index in range(40):
        clip = clips[index]
        for t in range(3):
            for g in range(CLIPS.objects):
                if clip["ids"][t, g] < 0 or clip["ignore"][t, g]:
                    continue
                x1, y1, x2, y2 = (int(v) for v in clip["boxes"][t, g].round())
                inner = clip["images"][t, :, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float()
                assert inner.numel() == 0 or float(inner.std(dim=(1, 2)).mean()) < 25
                checked += inner.numel() > 0
    assert checked > 30


def test_views_are_degraded_at_the_size_the_camera_had(shards, monkeypatch):
    sizes = []

    def seen(clip, kind, severity, seed, start):
        sizes.append(clip.shape[1:3])
        return 255 - clip

    monkeypatch.setattr("pipeline.clips.clips.degrade", seen)
    config = replace(CLIPS, degraded=1.0, degrade_at="camera")
    clips = Clips(Shards(shards), config, seed=3, clean_scale=1)
    items = [clips[i] for i in range(12)]
    assert max(sizes) > (CLIPS.height, CLIPS.width), "the shards' pictures are larger than that"
    for item in items:
        height, width = item["valid"][0].tolist()
        both = item["images"].int() + item["clean"].int()
        # The same view scaled alike; each is rounded twice, along rows and along columns.
        assert int((both[..., :height, :width] - 255).abs().max()) <= 2
