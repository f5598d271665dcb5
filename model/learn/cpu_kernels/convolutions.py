"""Convolutions of a student in training on a CPU: matrix products, and kernels compiled here.

A student is made of 1x1 and depthwise convolutions. PyTorch has no good gradients of the depthwise
ones for a CPU, and computes both kinds much slower than memory allows. Shapes: N frames, C input
channels, D output channels, k side of a kernel. Maps are channels-last in memory.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeGuard

import torch
from timm.layers import Conv2dSame, get_same_padding
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.learn.cpu_kernels.compiled import Sizes, cpu_flags, kernels
from model.track.tracker import Tracker

_FEW_CHANNELS = 16  # a layer with fewer gives scores or boxes, not features


def use_cpu_kernels(tracker: Tracker) -> None:
    """Let the convolutions of a tracker on a CPU compute by fast kernels in training mode.

    Parameters and the names in the state dict stay, and so does all that eval mode gives. Products
    of features are in bfloat16 if the CPU has it.

    Raises:
        KernelError: kernels cannot be compiled here.
    """
    kernels()
    for parent in list(tracker.modules()):
        for name, child in list(parent.named_children()):
            if _is_pointwise(child):
                setattr(parent, name, PointwiseConvolution(child))
            elif _is_depthwise(child):
                setattr(parent, name, DepthwiseConvolution(child))


class _Convolution(nn.Module, ABC):
    """Replacement of a convolution, with its parameters and their names.

    Args:
        plain: the module to replace; it computes in eval mode.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self._plain = plain.forward  # the module itself would add names to the state dict

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, D, h / stride, w / stride)."""
        if self.training and x.dtype == torch.float32:
            return self._fast(x)
        return self._plain(x)

    @abstractmethod
    def _fast(self, x: Tensor) -> Tensor:
        """What `forward` gives in training mode."""


class PointwiseConvolution(_Convolution):
    """A 1x1 convolution as a matrix product."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(plain)
        fast = {"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags()
        wide = plain.out_channels >= _FEW_CHANNELS
        self.dtype = torch.bfloat16 if fast and wide else torch.float32

    def _fast(self, x: Tensor) -> Tensor:
        rows = _rows(x)
        y = PointwiseProduct.apply(rows.flatten(0, 2), self.weight.flatten(1), self.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*rows.shape[:3], -1).permute(0, 3, 1, 2)


class DepthwiseConvolution(_Convolution):
    """A depthwise convolution without bias, padded with zeros."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(plain)
        self.kernel, self.stride = plain.kernel_size[0], plain.stride[0]
        self.padding = None if isinstance(plain, Conv2dSame) else plain.padding[0]

    def _fast(self, x: Tensor) -> Tensor:
        rows = _rows(x)
        (height, out_height, top), (width, out_width, left) = map(self._side, rows.shape[1:3])
        sizes = Sizes(
            len(rows), rows.shape[3], height, width, out_height, out_width,
            self.kernel, self.stride, top, left,
        )  # fmt: skip
        taps = self.weight.flatten(1).t()
        return DepthwiseProduct.apply(rows, taps.contiguous(), sizes).permute(0, 3, 1, 2)

    def _side(self, size: int) -> tuple[int, int, int]:
        """Length of a side of the input, of the output, and the padding before it."""
        if self.padding is None:
            both = get_same_padding(size, self.kernel, self.stride, 1)
            before = both // 2  # the rest lies behind
        else:
            before, both = self.padding, 2 * self.padding
        return size, (size + both - self.kernel) // self.stride + 1, before


class PointwiseProduct(torch.autograd.Function):
    """Products of rows (R, C) and weights (D, C), computed in a dtype and given in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (R, D)."""
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return (x @ weight.t()).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return gradients of the rows and of the weights."""
        x, weight = ctx.saved_tensors
        grad = grad.to(x.dtype)
        of_x = (grad @ weight).float() if ctx.needs_input_grad[0] else None
        of_weight = (grad.t() @ x).float() if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None


class DepthwiseProduct(torch.autograd.Function):
    """Depthwise convolution of maps (N, h, w, C) with weights (k * k, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, sizes: Sizes) -> Tensor:
        """Return (N, h / stride, w / stride, C)."""
        ctx.save_for_backward(x, taps)
        ctx.sizes = sizes
        y = x.new_empty(len(x), sizes.out_height, sizes.out_width, sizes.channels)
        _call(kernels().depthwise_forward, sizes, x, taps, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return gradients of the maps and of the weights."""
        x, taps = ctx.saved_tensors
        grad = grad.contiguous()
        of_x = of_taps = None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty_like(x)
            _call(kernels().depthwise_grad_input, ctx.sizes, grad, taps, of_x)
        if ctx.needs_input_grad[1]:
            by_image = x.new_zeros(len(x), *taps.shape)
            _call(kernels().depthwise_grad_weight, ctx.sizes, x, grad, by_image)
            of_taps = by_image.sum(0)
        return of_x, of_taps, None


def _call(function: Any, sizes: Sizes, *tensors: Tensor) -> None:
    function(sizes, torch.get_num_threads(), *(tensor.data_ptr() for tensor in tensors))


def _rows(x: Tensor) -> Tensor:
    """Map (N, C, h, w) as (N, h, w, C) without gaps: no copy if it is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _is_pointwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and module.stride == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
    )


def _is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the kernels know a convolution; they know those of the student, and few others."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module) in (nn.Conv2d, Conv2dSame)
        and 1 < module.in_channels == module.out_channels == module.groups
        and all(len(set(pair)) == 1 for pair in (module.kernel_size, module.stride))
        and module.padding in {(0, 0), (1, 1), (2, 2)}
        and module.padding_mode == "zeros"
        and module.dilation == (1, 1)
        and module.bias is None
    )
