"""Training clips: a few frames of a video, or a still made to move.

Everything drawn for a clip comes from (seed, index), so clip i is the same in every run. Views
are degraded at the size the camera had and scaled to the canvas afterwards, as in the archive.

Shapes: T frames a clip, G objects a frame at most, P patches, S patch side.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from model.clip_batch import ClipBatch
from model.letterbox import Letterbox
from model.quality import sample_patches
from pipeline.canvas import LONGEST, grey, letterboxed
from pipeline.degrade import PORTABLE_KINDS, degrade, frame_severities
from pipeline.shards import LabelledFrame, Shards

# A box of which less than this share is left in the view is nobody's fault to miss.
_VISIBLE_SHARE, _SMALLEST = 0.3, 6.0


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """How clips are drawn.

    Attributes:
        height, width: canvas in pixels, multiples of 32.
        length: frames a clip.
        stills: share of clips made from stills.
        longest_gap: greatest time in seconds between two frames of a clip.
        degraded: share of clips that are degraded.
        kinds: kinds of degradation drawn from; `codec` needs PyAV.
        objects: objects a frame at most; the rest is ignored.
    """

    height: int = 256
    width: int = 416
    length: int = 3
    stills: float = 0.6
    longest_gap: float = 0.3
    degraded: float = 0.4
    kinds: tuple[str, ...] = PORTABLE_KINDS
    objects: int = 64


@dataclass(frozen=True, slots=True)
class _View:
    """The part of a picture that a frame shows, in pixels: top-left corner and size."""

    x: float
    y: float
    width: float
    height: float

    def towards(self, other: "_View", share: float) -> "_View":
        mine = (self.x, self.y, self.width, self.height)
        theirs = (other.x, other.y, other.width, other.height)
        return _View(*(a + (b - a) * share for a, b in zip(mine, theirs, strict=True)))


class Clips(Dataset[dict[str, object]]):
    """Clip `index` of an endless, seeded stream; with the clean frames too, for a teacher."""

    def __init__(
        self, shards: Shards, config: ClipConfig, seed: int, *, clean: bool = False
    ) -> None:
        self.shards, self.config, self.seed, self.clean = shards, config, seed, clean
        self._stills = [i for i, s in enumerate(shards.sequences) if len(s.frames) == 1]
        self._videos = [i for i, s in enumerate(shards.sequences) if len(s.frames) > 1]
        if not self._stills and not self._videos:
            raise ValueError("the shards hold no frame")

    def __getitem__(self, index: int) -> dict[str, object]:
        """Return the arrays of one clip, named as in `ClipBatch` but without the B axis."""
        random = np.random.default_rng([self.seed, index])
        stills = self._stills if random.random() < self.config.stills else self._videos
        pool = stills or self._stills or self._videos
        # Longer videos hold more to learn, but less than in proportion.
        weight = np.sqrt([len(self.shards.sequences[i].frames) for i in pool])
        number = int(pool[random.choice(len(pool), p=weight / weight.sum())])
        return {**self._clip(number, random), "seeds": torch.tensor(random.integers(2**62))}

    def _clip(self, number: int, random: np.random.Generator) -> dict[str, object]:
        sequence, c = self.shards.sequences[number], self.config
        chosen = self._choose(number, random)
        pictures = {i: self.shards.picture(number, i) for i in set(chosen)}
        first = pictures[chosen[0]]
        start = _draw_view(first.width, first.height, c, random)
        end = _moved(start, first.width, first.height, random, still=len(sequence.frames) == 1)
        flip = random.random() < 0.5
        # As the camera took it: views of one clip differ by a few pixels when they zoom.
        shrunk = min(1.0, LONGEST / max(start.width, start.height))
        native = (max(1, round(start.width * shrunk)), max(1, round(start.height * shrunk)))
        box = Letterbox(native[1], native[0], c.height, c.width)
        size = (box.scaled_width, box.scaled_height)
        frames: list[np.ndarray] = []
        labels: list[tuple[np.ndarray, ...]] = []
        for t, i in enumerate(chosen):
            view = start.towards(end, t / max(1, len(chosen) - 1))
            corners = (view.x, view.y, view.x + view.width, view.y + view.height)
            picture = pictures[i].resize(native, Image.Resampling.BILINEAR, corners, reducing_gap=2)
            pixels = np.asarray(picture)
            frames.append(pixels[:, ::-1] if flip else pixels)
            labels.append(_labels(sequence.frames[i], view, size, flip))
        clean, recoded = _recolour(np.stack(frames), random)
        clip, severity = self._spoil(clean, sequence.clean and not recoded, random)
        packed = self._pack(clip, labels, severity, sequence.name)
        return packed | {"clean": self._canvas(clean)[0]} if self.clean else packed

    def _choose(self, number: int, random: np.random.Generator) -> list[int]:
        sequence, length = self.shards.sequences[number], self.config.length
        count = len(sequence.frames)
        if count == 1:
            return [0] * length
        longest = max(1, min(int(self.config.longest_gap * sequence.fps), count // length))
        stride = int(random.integers(1, longest + 1))
        last = max(1, count - stride * (length - 1))
        start = int(random.integers(last))
        chosen = [min(count - 1, start + stride * t) for t in range(length)]
        return chosen[::-1] if random.random() < 0.5 else chosen

    def _spoil(
        self, clip: np.ndarray, clean: bool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Degrade a clip or not; return it with the severity (T,) of each frame, -1 if unknown."""
        kind = self.config.kinds[int(random.integers(len(self.config.kinds)))]
        severity, seed = int(random.integers(1, 6)), int(random.integers(2**31))
        # Anywhere in a long video: a swing starts near clean, and clips are short.
        start = int(random.integers(200))
        # A poor picture made poorer is of unknown severity.
        levels = np.full(len(clip), 0.0 if clean else -1.0, np.float32)
        if random.random() >= self.config.degraded:
            return clip, levels
        if clean:
            levels[:] = frame_severities(kind, severity, seed, len(clip), start)
        return degrade(np.ascontiguousarray(clip), kind, severity, seed, start), levels

    def _pack(
        self,
        clip: np.ndarray,
        labels: Sequence[tuple[np.ndarray, ...]],
        severity: np.ndarray,
        name: str,
    ) -> dict[str, object]:
        c = self.config
        length = len(clip)
        images, (height, width) = self._canvas(clip)
        boxes = np.zeros((length, c.objects, 4), np.float32)
        ids = np.full((length, c.objects), -1, np.int64)
        classes = np.zeros((length, c.objects), np.int64)
        ignore = np.zeros((length, c.objects), bool)
        for t, (box, identity, label, ignored) in enumerate(labels):
            n = min(len(box), c.objects)
            boxes[t, :n] = np.clip(box[:n], 0, [width, height, width, height])
            ids[t, :n], classes[t, :n], ignore[t, :n] = identity[:n], label[:n], ignored[:n]
        return {
            "images": images,
            "valid": torch.tensor([[height, width]] * length),
            "patches": torch.from_numpy(np.stack([sample_patches(g) for g in grey(clip)])),
            "boxes": torch.from_numpy(boxes),
            "ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(classes),
            "ignore": torch.from_numpy(ignore),
            "severity": torch.from_numpy(severity),
            "names": name,
        }

    def _canvas(self, clip: np.ndarray) -> tuple[torch.Tensor, list[int]]:
        """Frames (T, h, w, 3) on the canvas: (T, 3, H, W), and their height and width there."""
        made = [letterboxed(frame, self.config.height, self.config.width) for frame in clip]
        return torch.stack([image for image, _ in made]), made[0][1]


def collate_clips(items: list[dict[str, object]]) -> ClipBatch:
    """Make a batch of clips, of which there is at least one."""
    names = tuple(str(item["names"]) for item in items)
    tensors = {
        key: torch.stack([item[key] for item in items])  # type: ignore[misc]
        for key in items[0]
        if key != "names"
    }
    return ClipBatch(**tensors, names=names)


def _draw_view(width: int, height: int, config: ClipConfig, random: np.random.Generator) -> _View:
    """The whole picture a third of the time, else a part of it, squeezed a little."""
    if random.random() < 0.35:
        return _View(0, 0, width, height)
    aspect = config.width / config.height * math.exp(random.uniform(-0.25, 0.25))
    view_width = width * math.exp(random.uniform(math.log(0.4), 0))
    view_height = min(height, view_width / aspect)
    view_width = min(view_width, view_height * aspect * 1.15)
    x, y = random.uniform(0, width - view_width), random.uniform(0, height - view_height)
    return _View(x, y, view_width, view_height)


def _moved(
    view: _View, width: int, height: int, random: np.random.Generator, *, still: bool
) -> _View:
    """Where the view is at the end of the clip: a still pans and zooms, a video only shakes."""
    reach = 0.2 if still else 0.02
    zoom = math.exp(random.uniform(-reach, reach) * 0.6)
    new_width, new_height = min(width, view.width * zoom), min(height, view.height * zoom)
    x = view.x + random.uniform(-reach, reach) * view.width
    y = view.y + random.uniform(-reach, reach) * view.height * 0.5
    x, y = (min(max(x, 0), width - new_width), min(max(y, 0), height - new_height))
    return _View(x, y, new_width, new_height)


def _labels(
    frame: LabelledFrame, view: _View, size: tuple[int, int], flip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) corners in the view's pixels, ids, labels, ignore; those out of view dropped."""
    boxes = np.asarray(frame.boxes, np.float32).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    corners = corners - [view.x, view.y, view.x, view.y]
    factor = np.array([size[0] / view.width, size[1] / view.height] * 2)
    whole = corners * factor
    clipped = np.clip(whole, 0, [*size, *size])
    area = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    share = area / np.maximum(1e-6, np.prod(whole[:, 2:] - whole[:, :2], axis=1))
    seen = share > 0.02
    ignore = np.asarray(frame.ignore, bool) | (share < _VISIBLE_SHARE)
    ignore |= clipped[:, 3] - clipped[:, 1] < _SMALLEST
    if flip:
        clipped = np.stack(
            [size[0] - clipped[:, 2], clipped[:, 1], size[0] - clipped[:, 0], clipped[:, 3]], 1
        )
    ids, classes = np.asarray(frame.ids, np.int64), np.asarray(frame.labels, np.int64)
    # Objects first, so that a frame with too many boxes gives up ignored ones before them.
    order = np.argsort(ignore[seen], kind="stable")
    return tuple(x[seen][order] for x in (clipped, ids, classes, ignore))


def _recolour(clip: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Change light, contrast, colour and compression of a clip, the same in every frame.

    Also says whether it was compressed anew, after which nobody knows how poor it is.
    """
    gamma, gain = math.exp(random.uniform(-0.4, 0.4)), math.exp(random.uniform(-0.3, 0.3))
    levels = np.arange(256) / 255
    tint = np.exp(random.uniform(-0.12, 0.12, size=3))
    curves = [np.clip(255 * gain * t * levels**gamma, 0, 255).astype(np.uint8) for t in tint]
    out = np.stack([curves[i][clip[..., i]] for i in range(3)], axis=-1)
    chance = random.random()
    if chance < 0.15:
        out = np.repeat((out @ np.array([77, 150, 29], np.uint16) >> 8)[..., None], 3, -1)
        out = out.astype(np.uint8)
    elif chance < 0.3:
        quality = int(random.integers(15, 60))
        return np.stack([_jpeg(frame, quality) for frame in out]), True
    return out, False


def _jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
