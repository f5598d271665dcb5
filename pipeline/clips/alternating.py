"""Steps on single frames and steps on clips in turn."""

from torch.utils.data import Dataset

from pipeline.clips.clips import Clips


class Alternating(Dataset[dict[str, object]]):
    """Single frames for some steps, clips for one step, and so on; without end.

    The items of step s are `index` s * stride to s * stride + its size, where stride is the larger
    of both sizes. So item `index` depends on index alone.

    Args:
        singles: single frames. Like `clips` it was made with `batch=stride`, so all items of a
            step have canvases of one size.
        clips: clips of several frames.
        steps: steps on single frames before each step on clips, at least 1.
    """

    def __init__(self, singles: Clips, clips: Clips, steps: int) -> None:
        if singles.batch != clips.batch:
            raise ValueError(
                f"single frames are counted by {singles.batch} a step and clips by {clips.batch}; "
                "make both with the same batch"
            )
        self.singles, self.clips, self.steps = singles, clips, steps

    def preload(self, threads: int) -> list[str]:
        """Decode pictures into memory; see `Clips.preload`."""
        return self.clips.preload(threads)

    def __getitem__(self, index: int) -> dict[str, object]:
        """Return the arrays of one item; see `Clips`.

        Raises:
            ShardError: pictures could not be read in many draws.
        """
        step = index // self.clips.batch
        of_clips = step % (self.steps + 1) == self.steps
        return (self.clips if of_clips else self.singles)[index]
