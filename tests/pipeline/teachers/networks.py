"""Tiny networks in ONNX files, and the same computed by torch."""

import numpy as np
import torch
from torch.nn import functional as F

WIDTHS = (4, 6, 8)
CLASSES = 2


def _onnx():
    import onnx

    return onnx, onnx.helper, onnx.numpy_helper


def _save(path, nodes, weights, shape, outputs):
    onnx, helper, numpy_helper = _onnx()
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("output", kind, outputs)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def tiny_yolox(path, seed=0):
    """Write a YOLOX of three convolutions and a head; return the path and its weights."""
    _, helper, _ = _onnx()
    random = np.random.default_rng(seed)
    weights, nodes = {}, []

    def conv(name, source, inputs, outputs, kernel=1, stride=1):
        size = 0.3 if source != "images" else 5e-4  # pixels are large numbers
        weights[f"{name}.weight"] = size * random.standard_normal(
            (outputs, inputs, kernel, kernel)
        ).astype(np.float32)
        weights[f"{name}.bias"] = random.standard_normal(outputs).astype(np.float32)
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{name}.weight", f"{name}.bias"],
                [name],
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
            )
        )
        return name

    def node(kind, sources, name, **more):
        nodes.append(helper.make_node(kind, sources, [name], **more))
        return name

    source, channels, flat = "images", 3, []
    weights["shape"] = np.array([1, 5 + CLASSES, -1], np.int64)
    for level, width in enumerate(WIDTHS):
        step = 8 if level == 0 else 2
        source = conv(f"level{level}", source, channels, width, step, step)
        source = node("Tanh", [source], f"pyramid{level}")
        channels = width
        stem = conv(f"stem{level}", source, width, 5)
        stem = node("Mul", [stem, node("Sigmoid", [stem], f"gate{level}")], f"stem{level}.out")
        tower = conv(f"tower{level}", stem, 5, 5)
        box = conv(f"box{level}", tower, 5, 4)
        seen = node("Sigmoid", [conv(f"seen{level}", tower, 5, 1)], f"seen{level}.out")
        what = node("Sigmoid", [conv(f"what{level}", stem, 5, CLASSES)], f"what{level}.out")
        joined = node("Concat", [box, seen, what], f"grid{level}", axis=1)
        flat.append(node("Reshape", [joined, "shape"], f"flat{level}"))
    node("Transpose", [node("Concat", flat, "rows", axis=2)], "output", perm=[0, 2, 1])
    positions = 8 * 8 + 4 * 4 + 2 * 2
    _save(path, nodes, weights, [1, 3, 64, 64], [1, positions, 5 + CLASSES])
    return path, {name: torch.from_numpy(value) for name, value in weights.items()}


def tiny_pyramid(weights, pixels):
    """Pyramid of `tiny_yolox`, by torch; pixels (N, 3, H, W) BGR in 0..255."""
    pyramid, x = [], pixels
    for level in range(len(WIDTHS)):
        weight, bias = weights[f"level{level}.weight"], weights[f"level{level}.bias"]
        x = F.conv2d(x, weight, bias, 8 if level == 0 else 2).tanh()
        pyramid.append(x)
    return pyramid


def tiny_reid(path):
    """Write a network whose vector is the mean of each channel of a normalised picture."""
    _, helper, _ = _onnx()
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["output"]),
    ]
    return _save(path, nodes, {}, [1, 3, 16, 8], [1, 3])
