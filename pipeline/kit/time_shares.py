"""Training time of each stage, and the number of loaders for a machine."""

from collections.abc import Sequence

from pipeline.kit.folder import KitError

_LEAST_S = 5.0  # shortest useful training time of a stage
_MOST_LOADERS = 16
_AHEAD = 3  # batches of a loader in shared memory: two that are ready, one in transfer


def stage_seconds(left: float, kept: float, shares: Sequence[float]) -> float:
    """Training time of the next stage, in seconds.

    Args:
        left: seconds until the command must end.
        kept: seconds of these for scoring and writing, in this stage and later ones.
        shares: shares of this stage and of later ones.

    Raises:
        KitError: the time is too short.
    """
    seconds = (left - kept) * shares[0] / sum(shares)
    if seconds < _LEAST_S:
        raise KitError(
            f"the budget is used up: {left:.0f} s are left, and scoring and writing need "
            f"{kept:.0f} s; give more --minutes, or fewer stages"
        )
    return seconds


def fitting_loaders(cores: int, batch_bytes: int, shared_bytes: int) -> int:
    """Number of loader processes: one less than cores, at most 16, and as shared memory allows.

    Args:
        cores: cores that this process may use.
        batch_bytes: size of a batch, which loaders pass on in shared memory.
        shared_bytes: free shared memory.
    """
    room = shared_bytes // (_AHEAD * batch_bytes)
    return min(max(1, cores - 1), _MOST_LOADERS, room)
