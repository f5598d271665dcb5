"""Losses of decoded queries, summed over frames and layers.

Shapes: L layers, N frames, Q queries, G objects a frame (padded).
"""

from torch import Tensor

from model.learn.clip_batch import FrameLabels
from model.learn.losses import box_loss, ignored, query_loss
from model.learn.matching import match
from model.net.decoder import DecoderOutput
from model.net.geometry import to_corners


def match_detections(output: DecoderOutput, labels: FrameLabels) -> Tensor:
    """Object of each detection query at each layer, (L, N, K); -1 for none.

    Detections do not know the tracks, so they answer for every object in every frame: there is
    no conflict between detecting and associating (CO-MOT, MeMOTR) left to settle.
    """
    return match(output.logits, output.boxes, labels.centres, labels.labels, labels.real)


def query_terms(
    output: DecoderOutput,
    targets: Tensor,
    live: Tensor,
    labels: FrameLabels,
    canvas: tuple[int, int],
    box_known: Tensor,
) -> dict[str, Tensor]:
    """Class, L1 and GIoU terms.

    Args:
        output: (L, N, Q, …).
        targets: (L, N, Q) object of each query at each layer, -1 for none.
        live: (N, Q) bool; False for empty slots, which cost nothing.
        labels: of the N frames.
        canvas: height and width in pixels.
        box_known: (N, G) bool, objects whose box is of the kind that the queries give.
    """
    height, width = canvas
    size = output.boxes.new_tensor([width, height, width, height])
    corners = to_corners(output.boxes.detach()) * size
    layers = len(corners)
    left_alone = ignored(
        corners, labels.corners.expand(layers, -1, -1, -1), labels.ignore.expand(layers, -1, -1)
    )
    return query_loss(
        output.logits,
        output.boxes,
        targets,
        labels.centres,
        labels.labels,
        live & ~left_alone,
        box_known,
    )


def whole_terms(whole: Tensor, target: Tensor, labels: FrameLabels) -> dict[str, Tensor]:
    """L1 and GIoU terms of boxes of whole people.

    Args:
        whole: (N, K, 4) centre form in [0, 1]. target: (N, K) object of each, -1 for none.
        labels: of the N frames.
    """
    index = target.clamp(min=0)
    known = (target >= 0) & labels.whole.gather(1, index)
    wanted = labels.centres.gather(1, index[..., None].expand(-1, -1, 4))
    return {f"whole_{name}": value for name, value in box_loss(whole, wanted, known).items()}


def add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add terms to sums by name."""
    for name, value in terms.items():
        sums[name] = sums[name] + value if name in sums else value
