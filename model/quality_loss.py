"""Frame quality trained alone, while the rest of a student stays as it is."""

from typing import Any

from torch import Tensor

from model.losses import quality_loss
from model.tracker import Tracker
from model.training import Objective


class QualityObjective(Objective):
    """Severity and order of frames whose severity is known; see `losses.quality_loss`.

    Nothing of the tracker but its read-out of quality is to be trainable: see `only_quality`.
    """

    def forward(self, tracker: Tracker, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of clips (B, T, …) or frames (N, …) on the tracker's device."""
        quality = tracker.assess(
            batch.images.flatten(0, -4), batch.valid.flatten(0, -2), batch.patches.flatten(0, -4)
        )
        everyone = self.communicator.gather
        loss = quality_loss(everyone(quality), everyone(batch.severity.flatten()))
        return loss, {"quality": float(loss.detach())}


def only_quality(tracker: Tracker) -> None:
    """Stop training everything but the read-out of quality."""
    tracker.requires_grad_(False)
    tracker.quality.requires_grad_(True)
