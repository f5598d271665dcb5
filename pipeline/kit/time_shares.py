"""How the minutes of one command are shared, and how many loaders a machine has room for."""

from collections.abc import Sequence

from pipeline.kit.folder import KitError

_LEAST_S = 5.0  # a stage that trains for less teaches nothing
_MOST_LOADERS = 16
_AHEAD = 3  # batches of a loader in shared memory: two it prepared, one under way


def stage_seconds(left: float, kept: float, shares: Sequence[float]) -> float:
    """Seconds that the first of some stages may train.

    Args:
        left: seconds until the command has to end.
        kept: of these, what scores and writing take at the end of this stage and of later ones.
        shares: of this stage and of those after it.

    Raises:
        KitError: hardly anything is left.
    """
    seconds = (left - kept) * shares[0] / sum(shares)
    if seconds < _LEAST_S:
        raise KitError(
            f"the budget is used up: {left:.0f} s are left, and scoring and writing take "
            f"{kept:.0f} s of them; give more --minutes, or fewer stages"
        )
    return seconds


def fitting_loaders(cores: int, batch_bytes: int, shared_bytes: int) -> int:
    """Loader processes: one less than cores, at most 16, and no more than shared memory holds.

    Args:
        cores: that this process may use.
        batch_bytes: of a batch; loaders hand batches over in shared memory.
        shared_bytes: of shared memory that are free.
    """
    room = shared_bytes // (_AHEAD * batch_bytes)
    return min(max(1, cores - 1), _MOST_LOADERS, room)
