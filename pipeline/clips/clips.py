"""Training clips: single frames, a few frames of a video, or a moving view of a still.

All draws of a clip depend on (seed, index), so clip i is the same in every run. OpenCV cuts views
at the size of the canvas, and they are degraded at this size. To learn quality, views are degraded
at the size of the camera's picture and then scaled to the canvas, as in tracking.

Shapes: T frames in a clip, H and W size of the canvas.
"""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from model.learn.clip_batch import ClipBatch
from model.net.letterbox import Letterbox
from model.net.quality import sample_patches
from model.teach.scaled import scaled_size
from pipeline.clips.config import ClipConfig
from pipeline.clips.frame_store import FrameStore
from pipeline.clips.labels import Labels
from pipeline.clips.paste import Donor, donors_of, paste_people
from pipeline.clips.recolour import draw_curves, draw_grey, recolour, without_colour
from pipeline.clips.single_frames import Still, draw_mosaic, draw_single
from pipeline.clips.sources import Sources
from pipeline.clips.spoil import spoil
from pipeline.clips.tensors import on_canvas, padded_labels
from pipeline.clips.views import View, cut, draw_moved, draw_view, labels_in
from pipeline.datasets.shards import PictureError, ShardError, Shards, require_train
from pipeline.degrade.kinds import degrade, frame_severities
from pipeline.video.canvas import LONGEST, grey, letterboxed

__all__ = ["ClipConfig", "Clips", "collate_clips"]

_UNKNOWN = -1.0  # severity
_ATTEMPTS = 20  # draws of an item before the shards count as unreadable
_CANVAS_DRAW = 1 << 32  # third number in seeds of canvas sizes; in seeds of items it is the attempt


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A clip before it is packed into tensors.

    Attributes:
        frames: T frames (h, w, 3) of one size, no larger than the canvas; degraded or not.
        clean: the same frames before degradation, at the scale of the teacher.
        luma: T planes (h, w) uint8, from which quality patches are cut.
        labels: labels of each frame.
        severity: (T,) severity of the degradation, -1 if unknown.
        name: name of the sequence.
    """

    frames: list[np.ndarray]
    clean: list[np.ndarray]
    luma: list[np.ndarray]
    labels: list[Labels]
    severity: np.ndarray
    name: str


class Clips(Dataset[dict[str, object]]):
    """An endless, seeded stream of clips; item `index` depends on (seed, index) alone.

    Args:
        shards: source of the pictures; only those of split `train` are drawn.
        config: settings of the clips.
        seed: seed of all draws.
        batch: clips in a step, over all workers; they have canvases of one size.
        clean_scale: adds the clean frames, for a teacher, and is their scale to the canvas; None
            adds none.
        store: decoded pictures of these shards, shared with other clips; None makes one.

    Raises:
        ShardError: the shards have no sequence of split `train`, or none of a favoured source.
    """

    def __init__(
        self,
        shards: Shards,
        config: ClipConfig,
        seed: int,
        *,
        batch: int = 1,
        clean_scale: float | None = None,
        store: FrameStore | None = None,
    ) -> None:
        self.shards, self.config, self.seed = shards, config, seed
        self.batch, self.clean_scale = batch, clean_scale
        # Only a larger frame is drawn apart.
        self._large = None if clean_scale == 1 else clean_scale
        self.store = store or FrameStore(shards, config.memory_gb)
        self._numbers = require_train(shards)
        self._sources = Sources(shards, self._numbers, config.stills, config.favoured)
        self._labels = {
            i: [Labels.of(f, s.extent) for f in s.frames]
            for i, s in enumerate(shards.sequences)
            if s.split == "train"
        }
        self._donors = self._find_donors()
        self._reported: set[str] = set()
        # One thread, because several loaders run at the same time as the training.
        cv2.setNumThreads(0)

    def preload(self, threads: int) -> list[str]:
        """Decode pictures into memory, before loader processes are forked.

        Returns:
            a line for each picture that cannot be read.
        """
        keys = [(i, t) for i in self._numbers for t in range(len(self._labels[i]))]
        return self.store.preload(keys, threads)

    def canvas(self, index: int) -> tuple[int, int]:
        """Height and width in pixels of the canvas of an item, equal for all items of a batch."""
        sizes = self.config.canvases()
        if len(sizes) == 1:
            return sizes[0]
        random = np.random.default_rng([self.seed, index // self.batch, _CANVAS_DRAW])
        return sizes[random.integers(len(sizes))]

    def __getitem__(self, index: int) -> dict[str, object]:
        """Return the arrays of one clip, named as in `ClipBatch` but without the B axis.

        If a picture cannot be read, the clip is drawn again, and `problems` names the picture, once
        per process.

        Raises:
            ShardError: pictures could not be read in many draws of one clip.
        """
        problems: list[str] = []
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self.seed, index, attempt])
            try:
                drawn = self._draw(self.canvas(index), random)
            except PictureError as error:
                problems.append(str(error))
                continue
            new = tuple(p for p in dict.fromkeys(problems) if p not in self._reported)
            self._reported.update(new)
            seed = torch.tensor(random.integers(2**62))
            return {**self._pack(drawn, self.canvas(index)), "seeds": seed, "problems": new}
        raise ShardError(
            f"{problems[-1]}; {_ATTEMPTS - 1} other draws failed too; run vsdmot pack again"
        )

    def _draw(self, canvas: tuple[int, int], random: np.random.Generator) -> _Drawn:
        if self.config.degrade_at == "camera":
            return self._camera_clip(canvas, random)
        if self.config.length == 1:
            return self._single(canvas, random)
        return self._moving(canvas, random)

    def _single(self, canvas: tuple[int, int], random: np.random.Generator) -> _Drawn:
        c = self.config
        if random.random() < c.mosaic:
            drawn = draw_mosaic(lambda: self._still(random), canvas, c, random, self._large)
        else:
            drawn = draw_single(self._still(random), canvas, c, random, self._large)
        pixels, labels, large = drawn.pixels, drawn.labels, drawn.large
        if self._donors and random.random() < c.paste:
            donor = partial(self._donor, random)
            pixels, labels = paste_people(pixels, labels, donor, random, large)
        clean = [pixels] if large is None else [large]
        return self._at_canvas([pixels], clean, [labels], drawn.name, random)

    def _moving(self, canvas: tuple[int, int], random: np.random.Generator) -> _Drawn:
        number = self._sources.draw(random)
        chosen = self._choose(number, random)
        pictures = {i: self.store.picture(number, i) for i in sorted(set(chosen))}
        views, flip = self._views(number, pictures[chosen[0]], canvas, random)
        size = _letterbox_size(round(views[0].width), round(views[0].height), canvas)
        curves = draw_curves(random)
        frames, labels = [], []
        for i, view in zip(chosen, views, strict=True):
            frames.append(recolour(cut(pictures[i], view, size, flip=flip), curves))
            labels.append(labels_in(self._labels[number][i], view, size, flip=flip))
        clean = frames
        if self._large is not None:
            size = scaled_size(size, self._large)
            clean = [
                recolour(cut(pictures[i], view, size, flip=flip), curves)
                for i, view in zip(chosen, views, strict=True)
            ]
        return self._at_canvas(frames, clean, labels, self.shards.sequences[number].name, random)

    def _at_canvas(
        self,
        frames: list[np.ndarray],
        clean: list[np.ndarray],
        labels: list[Labels],
        name: str,
        random: np.random.Generator,
    ) -> _Drawn:
        """Make a clip of frames at the size of the canvas, at random degraded.

        Args:
            frames: T frames at the size of the canvas.
            clean: the same at the scale of the teacher.
            labels: in pixels of the frames.
            name: of the sequence.
            random: source of the draws.
        """
        if draw_grey(random):
            frames = [without_colour(frame) for frame in frames]
            clean = [without_colour(frame) for frame in clean]
        shown = frames
        if random.random() < self.config.degraded:
            shown = spoil(frames, self.config.kinds, self.config.several, random)
        luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in shown]
        # Severity is unknown, because scaling to the canvas changes the quality of the source.
        severity = np.full(len(frames), _UNKNOWN, np.float32)
        return _Drawn(shown, clean, luma, labels, severity, name)

    def _camera_clip(self, canvas: tuple[int, int], random: np.random.Generator) -> _Drawn:
        """A clip degraded at the size of the camera's picture, then scaled to the canvas."""
        number = self._sources.draw(random)
        sequence, chosen = self.shards.sequences[number], self._choose(number, random)
        pictures = {i: self.store.picture(number, i) for i in sorted(set(chosen))}
        views, flip = self._views(number, pictures[chosen[0]], canvas, random)
        # One size for all frames, although views differ by a few pixels if they zoom.
        shrunk = min(1.0, LONGEST / max(views[0].width, views[0].height))
        native = (
            max(1, round(views[0].width * shrunk)),
            max(1, round(views[0].height * shrunk)),
        )
        size = _letterbox_size(*native, canvas)
        curves, without = draw_curves(random), draw_grey(random)
        frames, labels = [], []
        for i, view in zip(chosen, views, strict=True):
            pixels = recolour(cut(pictures[i], view, native, flip=flip), curves)
            frames.append(without_colour(pixels) if without else pixels)
            labels.append(labels_in(self._labels[number][i], view, size, flip=flip))
        clean = np.stack(frames)
        shown, severity = self._degrade(clean, sequence.clean, random)
        on_canvas = [_scaled(frame, canvas, size) for frame in shown]
        before = on_canvas
        if self.clean_scale is not None:
            canvas = scaled_size(canvas, self.clean_scale)
            size = _letterbox_size(*native, canvas)
            before = [_scaled(frame, canvas, size) for frame in clean]
        return _Drawn(on_canvas, before, list(grey(shown)), labels, severity, sequence.name)

    def _degrade(
        self, clip: np.ndarray, clean: bool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Degrade a clip at random; return it and the severity (T,) of frames, -1 if unknown."""
        kind = self.config.kinds[int(random.integers(len(self.config.kinds)))]
        severity, seed = int(random.integers(1, 6)), int(random.integers(2**31))
        # The clip starts anywhere in a long video, because the level of `swing` varies over time.
        start = int(random.integers(200))
        # A source that is not clean has an unknown severity, degraded or not.
        levels = np.full(len(clip), 0.0 if clean else _UNKNOWN, np.float32)
        if random.random() >= self.config.degraded:
            return clip, levels
        if clean:
            levels[:] = frame_severities(kind, severity, seed, len(clip), start)
        return degrade(clip, kind, severity, seed, start), levels

    def _views(
        self,
        number: int,
        first: np.ndarray,
        canvas: tuple[int, int],
        random: np.random.Generator,
    ) -> tuple[list[View], bool]:
        """The view of each frame of a clip, and whether it is mirrored."""
        height, width = first.shape[:2]
        start = draw_view(width, height, canvas, random)
        still = self.shards.sequences[number].fps == 0
        end = draw_moved(start, width, height, random, still=still)
        last = max(1, self.config.length - 1)
        views = [start.towards(end, t / last) for t in range(self.config.length)]
        return views, random.random() < 0.5

    def _choose(self, number: int, random: np.random.Generator) -> list[int]:
        """Draw frames of a sequence, equally spaced, in order or in reverse."""
        sequence, length = self.shards.sequences[number], self.config.length
        count = len(sequence.frames)
        longest = max(1, min(int(self.config.longest_gap * sequence.fps), count // length))
        stride = int(random.integers(1, longest + 1))
        last = max(1, count - stride * (length - 1))
        start = int(random.integers(last))
        chosen = [min(count - 1, start + stride * t) for t in range(length)]
        return chosen[::-1] if random.random() < 0.5 else chosen

    def _still(self, random: np.random.Generator) -> Still:
        """Draw a still, or a frame of a video."""
        number = self._sources.draw(random)
        sequence = self.shards.sequences[number]
        frame = int(random.integers(len(sequence.frames)))
        pixels = self.store.picture(number, frame)
        return Still(pixels, self._labels[number][frame], sequence.squeezed, sequence.name)

    def _find_donors(self) -> list[list[Donor]]:
        """People in stills that can be cut out and pasted, by source."""
        found: dict[str, list[Donor]] = {}
        if self.config.paste and self.config.length == 1:
            for number in self._numbers:
                sequence = self.shards.sequences[number]
                if sequence.fps == 0:
                    donors = donors_of(self._labels[number][0], number, 0)
                    found.setdefault(sequence.source, []).extend(donors)
        return [donors for donors in found.values() if donors]

    def _donor(self, random: np.random.Generator) -> tuple[np.ndarray, Donor]:
        """Draw a person to paste, with the picture of that person."""
        donors = self._donors[random.integers(len(self._donors))]
        donor = donors[random.integers(len(donors))]
        return self.store.picture(donor.sequence, donor.frame), donor

    def _pack(self, drawn: _Drawn, canvas: tuple[int, int]) -> dict[str, object]:
        height, width = drawn.frames[0].shape[:2]
        packed: dict[str, object] = {
            "images": on_canvas(drawn.frames, canvas),
            "valid": torch.tensor([[height, width]] * len(drawn.frames)),
            "patches": torch.from_numpy(np.stack([sample_patches(g) for g in drawn.luma])),
            "severity": torch.from_numpy(drawn.severity),
            "names": drawn.name,
            **padded_labels(drawn.labels, self.config.objects),
        }
        if self.clean_scale is not None:
            packed["clean"] = on_canvas(drawn.clean, scaled_size(canvas, self.clean_scale))
        return packed


def collate_clips(items: list[dict[str, object]]) -> ClipBatch:
    """Make a batch of at least one clip.

    Objects are padded to the largest number in the batch, at least one.
    """
    names = tuple(str(item["names"]) for item in items)
    problems = tuple(dict.fromkeys(p for item in items for p in item["problems"]))  # type: ignore[attr-defined]
    tensors = {
        key: torch.stack([item[key] for item in items])  # type: ignore[misc]
        for key in items[0]
        if key not in ("names", "problems")
    }
    most = max(1, int((tensors["ids"] >= 0).sum(-1).max()))
    for key in ("boxes", "ids", "labels", "ignore", "extent"):
        tensors[key] = tensors[key][:, :, :most].contiguous()
    return ClipBatch(**tensors, names=names, problems=problems)


def _letterbox_size(width: int, height: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture on a canvas (height, width)."""
    box = Letterbox(max(1, height), max(1, width), *canvas)
    return box.scaled_width, box.scaled_height


def _scaled(frame: np.ndarray, canvas: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Scale a frame (h, w, 3) to `size` (width, height) for a canvas, as tracking does."""
    image, _ = letterboxed(frame, *canvas)
    return image.permute(1, 2, 0).numpy()[: size[1], : size[0]]
