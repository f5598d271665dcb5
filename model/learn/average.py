"""The moving average of a tracker's weights; the average is what is shipped."""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.track.tracker import Tracker


class AveragedWeights:
    """Average of the trained parameters; running statistics are copied from the live tracker.

    Args:
        tracker: the live one; its tensors are read anew at each update, and must stay the same
            objects.

    Attributes:
        values: the average, by the names of the tracker's state dict.
    """

    def __init__(self, tracker: Tracker) -> None:
        live = tracker.state_dict()  # shares storage with the tracker
        self.values: dict[str, Tensor] = {name: value.clone() for name, value in live.items()}
        trained = [name for name, p in tracker.named_parameters() if p.requires_grad]
        # Floating-point buffers are statistics; counters do not change.
        kept = [n for n, b in tracker.named_buffers() if n in live and b.is_floating_point()]
        self._trained = [self.values[name] for name in trained]
        self._kept = [self.values[name] for name in kept]
        self._live_trained = [live[name] for name in trained]
        self._live_kept = [live[name] for name in kept]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards the live tracker by a share of `1 - decay`."""
        torch._foreach_lerp_(self._trained, self._live_trained, 1 - decay)
        torch._foreach_copy_(self._kept, self._live_kept)

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Set the live tracker's running statistics to those of the last update."""
        torch._foreach_copy_(self._live_kept, self._kept)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Replace the average by values of the same names and shapes."""
        for name, value in self.values.items():
            value.copy_(values[name])
