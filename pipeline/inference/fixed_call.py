"""A function of tensors of fixed shapes, recorded once as a CUDA graph where it runs on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3  # calls before the recording, in which libraries choose their kernels

Tensors = Mapping[str, Tensor]


class FixedCall:
    """Calls a function on the same tensors again and again.

    A step has hundreds of small kernels, and to launch them one by one takes longer than to run
    them. A CUDA graph launches them all at once. It reads and writes the same memory every time,
    so the caller fills `inputs` in place, and copies what it keeps of the outputs.

    Attributes:
        function: Takes and returns tensors by name.
        inputs: Tensors that the function reads, by name; their shapes never change.
        problem: Why a GPU runs it without a graph; "" if it has one, or on a CPU.
    """

    def __init__(
        self,
        function: Callable[[Tensors], Tensors],
        inputs: Tensors,
        pool: Any = None,
    ) -> None:
        """Record the function on the current stream of the GPU.

        Args:
            function: On a GPU it may not wait for the device.
            inputs: Tensors for `inputs`, filled with values that the function can be run on.
            pool: Memory that several calls share, from `torch.cuda.graph_pool_handle`. The outputs
                of one then hold until any of them runs.

        Raises:
            torch.OutOfMemoryError: The GPU is too small.
        """
        self.inputs = inputs
        self.problem = ""
        self.function = function
        self._pool = pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Tensors = {}
        if next(iter(inputs.values())).device.type == "cuda":
            self._record()

    def run(self) -> Tensors:
        """Run the function on `inputs`. The outputs hold until the next run."""
        if self._graph is None:
            return self.function(self.inputs)
        self._graph.replay()
        return self._outputs

    def _record(self) -> None:
        # A recording needs a warm function on a stream of its own (torch.cuda.graphs).
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self.function(self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads copy frames to the GPU at the same time.
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                outputs = self.function(self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.problem = f"no CUDA graph ({str(error).splitlines()[0]})"
            return
        self._graph, self._outputs = graph, outputs
