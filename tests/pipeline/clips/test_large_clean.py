"""Clean frames for a teacher that sees more pixels: the student's own frames stay as they were."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pipeline.clips.clips import Clips
from pipeline.datasets.shards import Shards
from tests.training_parts import CLIPS

KINDS = {
    "single": replace(CLIPS, length=1, mosaic=0.0, paste=0.0),
    "mosaic": replace(CLIPS, length=1, mosaic=1.0, paste=0.0),
    "pasted": replace(CLIPS, length=1, mosaic=0.5, paste=1.0),
    "moving": replace(CLIPS, length=3),
    "camera": replace(CLIPS, length=2, degrade_at="camera"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_large_frame_is_the_clean_one_with_more_pixels(shards, kind):
    plain, large = (Clips(Shards(shards), KINDS[kind], 7, clean_scale=s) for s in (1, 1.5))
    for index in range(12):
        one, other = plain[index], large[index]
        for name in one.keys() - {"clean"}:
            if isinstance(one[name], torch.Tensor):
                assert torch.equal(one[name], other[name]), name
        assert other["clean"].shape[-2:] == (96, 144)
        small = F.interpolate(other["clean"].float(), size=(64, 96), mode="area")
        height, width = one["valid"][0].tolist()
        apart = (small - one["clean"])[..., : height - 1, : width - 1].abs()
        # Noise of the backdrop is averaged in one, not in the other. Edges lie alike.
        assert float(apart.mean()) < 12, index
