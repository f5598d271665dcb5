"""Drawn sequences, from a seed, for runs without data. They show that a run works, not how well."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.datasets.boxes import Boxes

_WIDTH, _HEIGHT, _RATE = 320, 240, 25


def make_synthetic(
    root: Path, sequences: int = 2, frames: int = 40, people: int = 5, seed: int = 0
) -> Path:
    """Write sequences in MOTChallenge layout below `root`, unless they exist; returns `root`."""
    for number in range(sequences):
        folder = root / f"SYNTH-{number + 1:02d}"
        if not (folder / "seqinfo.ini").is_file():
            _write(folder, np.random.default_rng([seed, number]), frames, people)
    return root


def _write(folder: Path, random: np.random.Generator, frames: int, people: int) -> None:
    (folder / "gt").mkdir(parents=True, exist_ok=True)
    ground = Image.fromarray(random.integers(60, 190, (12, 16, 3), dtype=np.uint8))
    ground = ground.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    depth = random.uniform(0.2, 1.0, people)
    height = 50 + 70 * depth
    start = random.uniform(0, _WIDTH, people)
    speed = random.uniform(0.8, 3.0, people) * random.choice([-1, 1], people) * (0.4 + depth)
    clothes = random.integers(0, 255, (people, 3, 3))
    rows = []
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for frame in range(frames):
            picture = ground.copy()
            for i in np.argsort(depth):  # the nearest person is drawn last
                middle = (start[i] + speed[i] * frame) % (1.4 * _WIDTH) - 0.2 * _WIDTH
                foot = 0.45 * _HEIGHT + 0.5 * _HEIGHT * depth[i]
                box = (middle - 0.2 * height[i], foot - height[i], 0.4 * height[i], height[i])
                _draw_person(picture, box, clothes[i], frame * speed[i] / 8)
                left, right = max(0.0, box[0]), min(float(_WIDTH), box[0] + box[2])
                if right - left > 0.3 * box[2]:
                    rows.append((frame + 1, i + 1, left, box[1], right - left, box[3]))
            soft = picture.filter(ImageFilter.GaussianBlur(0.7))
            shown = av.VideoFrame.from_image(soft)
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    table = np.array(rows).reshape(-1, 6)
    _write_gt(folder, Boxes.of(table[:, 0], table[:, 1], table[:, 2:]))
    # Written last, because a sequence with this file counts as complete.
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={_RATE}\nseqLength={frames}\n"
        f"imWidth={_WIDTH}\nimHeight={_HEIGHT}\n"
    )


def _write_gt(folder: Path, gt: Boxes) -> None:
    lines = [
        f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1,1,1\n"
        for f, i, (x, y, w, h) in zip(gt.frame, gt.track_id, gt.xywh, strict=True)
    ]
    (folder / "gt" / "gt.txt").write_text("".join(lines))


def _draw_person(
    picture: Image.Image, box: tuple[float, ...], clothes: np.ndarray, pace: float
) -> None:
    x, y, w, h = box
    draw = ImageDraw.Draw(picture)
    skin, shirt, trousers = (tuple(int(c) for c in colour) for colour in clothes)
    swing = 0.25 * w * math.sin(pace)
    middle, hip = x + w / 2, y + 0.55 * h
    for side in (-1, 1):
        foot = middle + side * swing
        draw.line([(middle, hip), (foot, y + h)], fill=trousers, width=max(2, round(0.18 * w)))
    draw.ellipse([x + 0.2 * w, y + 0.16 * h, x + 0.8 * w, y + 0.62 * h], fill=shirt)
    draw.ellipse([x + 0.33 * w, y, x + 0.67 * w, y + 0.18 * h], fill=skin)
