"""Losses of decoded queries, summed over frames and layers.

Shapes: L layers, N frames, Q queries, G objects a frame.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.clip_batch import FrameLabels
from model.decoder import DecoderOutput
from model.geometry import to_corners
from model.losses import ignored, query_loss
from model.matching import match


@torch.no_grad()
def match_detections(output: DecoderOutput, labels: Sequence[FrameLabels]) -> Tensor:
    """Object of each detection query at each layer, (L, N, K); -1 for none.

    Detections do not know the tracks, so they answer for every object in every frame: there is
    no conflict between detecting and associating (CO-MOT, MeMOTR) left to settle.
    """
    targets = torch.full(output.logits.shape[:3], -1, device=output.boxes.device)
    for n, frame in enumerate(labels):
        if len(frame.ids):
            for layer in range(len(targets)):
                targets[layer, n] = match(
                    output.logits[layer, n], output.boxes[layer, n], frame.centres, frame.labels
                )
    return targets


def query_terms(
    output: DecoderOutput,
    targets: Tensor,
    live: Tensor,
    labels: Sequence[FrameLabels],
    canvas: tuple[int, int],
) -> dict[str, Tensor]:
    """Class, L1 and GIoU terms.

    Args:
        output: (L, N, Q, …).
        targets: (L, N, Q) object of each query at each layer, -1 for none.
        live: (N, Q) bool; False for empty slots, which cost nothing.
        labels: of the N frames.
        canvas: height and width in pixels.
    """
    height, width = canvas
    size = output.boxes.new_tensor([width, height, width, height])
    corners = to_corners(output.boxes.detach()) * size
    sums: dict[str, Tensor] = {}
    for layer, target in enumerate(targets):
        for n, frame in enumerate(labels):
            counted = live[n] & ~ignored(corners[layer, n], frame.ignore)
            terms = query_loss(
                output.logits[layer, n],
                output.boxes[layer, n],
                target[n],
                frame.centres,
                frame.labels,
                counted,
            )
            add(sums, terms)
    return sums


def add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add terms to sums by name."""
    for name, value in terms.items():
        sums[name] = sums[name] + value if name in sums else value
