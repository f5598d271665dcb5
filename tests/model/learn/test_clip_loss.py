"""The loss of clips: what it asks of detections, tracks and the step between them."""

from dataclasses import fields, replace

import torch

from model.communicator import Communicator
from model.learn.clip_batch import ClipBatch, Extent, FrameLabels
from model.learn.clip_loss import clip_loss
from model.learn.track_loss import _associate
from model.net.decoder import DecoderOutput
from model.net.geometry import to_centres, to_corners
from model.track.tracks import TrackState
from model.track.transport import Transported
from tests.tiny import TINY, tiny_tracker

OBJECTS = 3


ALONE = Communicator()


class Fake(Communicator):
    """A worker among several that are played one after the other."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean


def make_batch(clips=2, length=3, seed=0):
    """Noise with boxes that drift: enough for every term to have something to say."""
    random = torch.Generator().manual_seed(seed)
    shape = (clips, length, 3, TINY.input_height, TINY.input_width)
    low = torch.rand(clips, 1, OBJECTS, 2, generator=random) * torch.tensor([60.0, 30.0])
    low = low + torch.arange(length)[:, None, None] * 1.5
    boxes = torch.cat([low, low + torch.tensor([14.0, 28.0])], -1)
    return ClipBatch(
        images=torch.randint(0, 256, shape, dtype=torch.uint8, generator=random),
        valid=torch.tensor([[[TINY.input_height, TINY.input_width]] * length] * clips),
        patches=torch.randint(
            0, 256, (clips, length, 8, 64, 64), dtype=torch.uint8, generator=random
        ),
        boxes=boxes,
        ids=torch.arange(OBJECTS).expand(clips, length, -1),
        labels=torch.zeros(clips, length, OBJECTS, dtype=torch.long),
        ignore=torch.zeros(clips, length, OBJECTS, dtype=torch.bool),
        extent=(torch.arange(OBJECTS) % 3).to(torch.uint8).expand(clips, length, -1),
        severity=torch.randint(0, 6, (clips, length), generator=random).float(),
        seeds=torch.arange(clips) + 7,
        names=tuple(f"clip {i}" for i in range(clips)),
    )


def part_of(batch, index):
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    taken = {k: v[index] for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    return replace(batch, **taken, names=batch.names[index])


@torch.no_grad()
def where_it_detects(tracker, batch):
    """The batch with objects where the tracker finds something, so that there is whom to follow."""
    frames = (batch.images, batch.valid, batch.patches)
    found = tracker.encode(*(x.flatten(0, 1) for x in frames)).detections
    size = torch.tensor([TINY.input_width, TINY.input_height] * 2)
    boxes = to_corners(found.boxes[-1, :, :OBJECTS]) * size
    return replace(batch, boxes=boxes.view(batch.boxes.shape))


def test_every_parameter_that_tracks_is_trained():
    tracker = tiny_tracker(lively=True).train()
    found = clip_loss(tracker, where_it_detects(tracker, make_batch()), ALONE)
    total, terms = found.total, found.terms
    assert set(terms) >= {"dense_class", "class", "track_class", "track_giou", "associate"}
    total.backward()
    silent = [
        name
        for name, parameter in tracker.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == [], silent


def test_a_single_frame_has_no_tracks_to_answer_for():
    terms = clip_loss(tiny_tracker().train(), make_batch(length=1), ALONE).terms
    assert not any(name.startswith("track") or name == "associate" for name in terms)


def test_halves_on_two_workers_sum_to_the_whole_batch():
    tracker = tiny_tracker(lively=True).train()
    batch = replace(make_batch(clips=4), severity=torch.full((4, 3), -1.0))
    halves = [part_of(batch, slice(0, 2)), part_of(batch, slice(2, 4))]

    def gradient(loss):
        tracker.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in tracker.parameters() if p.grad is not None])

    whole = gradient(clip_loss(tracker, batch, ALONE).total)
    asked: list[list[torch.Tensor]] = []
    for half in halves:  # first what each worker would put into the mean, then with the mean
        values: list[torch.Tensor] = []
        clip_loss(tracker, half, Fake(lambda x, v=values: v.append(x) or x))
        asked.append(values)
    means = [torch.stack(pair).mean(0) for pair in zip(*asked, strict=True)]
    parts = []
    for half in halves:
        answers = iter(means)
        parts.append(gradient(clip_loss(tracker, half, Fake(lambda _, a=answers: next(a))).total))
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=2e-3, atol=2e-5)


def test_association_asks_tracks_to_follow_and_newborns_to_be_new():
    corners = torch.tensor([[0.1, 0.1, 0.3, 0.5], [0.6, 0.1, 0.8, 0.5]])
    yes = torch.ones(1, 2, dtype=torch.bool)
    labels = FrameLabels(
        corners=corners[None],
        centres=to_centres(corners)[None],
        ids=torch.tensor([[5, 9]]),
        labels=torch.zeros(1, 2, dtype=torch.long),
        real=yes,
        ignore=~yes,
        extent=torch.full((1, 2), Extent.WHOLE),
    )
    state = replace(
        TrackState.empty(1, 2, 8, 1),
        track_id=torch.tensor([[5, 7]]),
        active=torch.ones(1, 2, dtype=torch.bool),
    )
    # Slot 0 owns object 0, slot 1 lost its own; detection 0 is object 1, detection 1 object 0.
    owned, found = torch.tensor([[0, -1]]), torch.tensor([[1, 0]])
    output = DecoderOutput(
        torch.zeros(1, 1, 2, 1), to_centres(corners.flip(0))[None, None], torch.zeros(1, 2, 8)
    )

    def loss(of_track, of_detection):
        nothing = torch.zeros(1)
        asked = Transported(*[nothing] * 5, of_track.log()[None], of_detection.log()[None])
        return float(_associate(asked, state, owned, found, output, labels))

    near, e = 0.98, 0.01
    follow = torch.tensor([[e, near, e], [e, e, near]])  # slot 0 follows detection 1, slot 1 stays
    claimed = torch.tensor([[e, near], [e, e], [near, e]])  # detection 0 is new, 1 is slot 0's
    right = loss(follow, claimed)
    assert right < 0.1
    assert loss(follow.flip(0), claimed) > right + 5
    assert loss(follow, claimed.flip(1)) > right + 5
