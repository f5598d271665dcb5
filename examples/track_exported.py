"""Track people with `vsdmot export` of format onnx or openvino: track_exported.py FOLDER VIDEO

Needs openvino, av and numpy. Prints frame, id, x, y, width, height and score of each person seen.
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import openvino

folder, video = Path(sys.argv[1]), sys.argv[2]
about = json.loads((folder / "model.json").read_text())


def opened(model):
    """A function from the model's inputs to its outputs, both arrays by name."""
    run = openvino.compile_model(folder / model["file"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: {port.get_any_name(): x for port, x in run(given).items()}


def patches(luma, count=(2, 4), side=about["patches"]["side"]):
    """Pieces of the luma, by which the model judges the quality of the picture."""
    luma = np.pad(luma, [(0, max(0, side - n)) for n in luma.shape], mode="edge")
    starts = [
        [int((n - side) * (i + 0.5) / k) // 8 * 8 for i in range(k)]
        for n, k in zip(luma.shape, count, strict=True)
    ]
    return np.stack([luma[y : y + side, x : x + side] for y in starts[0] for x in starts[1]])


encode, step = opened(about["encode"]), opened(about["step"])
height, width = about["canvas"]["height"], about["canvas"]["width"]
shapes = {x["name"]: (x["shape"], x["dtype"]) for x in about["step"]["inputs"]}
first = {x["before"]: x["first"] for x in about["state"]} | about["thresholds"]
state = {name: np.full(shapes[name][0], x, shapes[name][1]) for name, x in first.items()}

for number, frame in enumerate(av.open(video).decode(video=0)):
    factor = min(height / frame.height, width / frame.width)
    h, w = (min(a, round(b * factor)) for a, b in ((height, frame.height), (width, frame.width)))
    small = frame.reformat(width=w, height=h, format="rgb24", interpolation="BILINEAR")
    image = np.zeros((1, height, width, 3), np.uint8)
    image[0, :h, :w] = small.to_ndarray()
    luma = frame.reformat(format="gray").to_ndarray()
    seen = encode(
        {"in_image": image, "in_valid": np.array([[h, w]]), "in_patches": patches(luma)[None]}
    )
    found = step({name.replace("out_", "in_"): x for name, x in seen.items()} | state)
    state |= {x["before"]: found[x["after"]] for x in about["state"]}
    ids, boxes, scores = (found[f"out_{name}"][0] for name in ("track_id", "boxes", "scores"))
    boxes = boxes / np.tile([w / frame.width, h / frame.height], 2)
    for slot in np.flatnonzero(ids >= 0):
        x, y, right, bottom = boxes[slot].round(2)
        print(number, ids[slot], x, y, right - x, bottom - y, scores[slot].round(4))
