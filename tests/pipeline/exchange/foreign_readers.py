"""Reads exports with the targets' own libraries, in an environment of their own.

foreign_readers.py datumaro FILE FORMAT | labelstudio FOLDER VIDEO_ID; prints JSON.
"""

import json
import sys
from pathlib import Path


def datumaro(path, form):
    """Rows frame, track id, whether outside, x, y, w, h."""
    from datumaro.components.dataset import Dataset

    rows = []
    for item in Dataset.import_from(path, form):
        for one in item.annotations:
            given = one.attributes
            frame = given.get("frame", item.attributes.get("frame", item.id.rpartition("/")[2]))
            box = [float(value) for value in one.get_bbox()]
            # Its reader of COCO knows no tracks.
            track = int(given.get("track_id", -1))
            rows.append([int(frame), track, bool(given.get("outside")), *box])
    return rows


def labelstudio(folder, video_id):
    """Errors of the schema, and rows frame, region, x, y, w, h as Label Studio interpolates."""
    from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import (
        extract_key_frames,
    )
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((Path(folder) / "labeling_config.xml").read_text())
    interface.validate()
    (task,) = json.loads((Path(folder) / f"{video_id}.json").read_text())
    (prediction,) = task["predictions"]
    errors = interface.validate_prediction(prediction, return_errors=True)
    rows = [
        [key["frame"], region["id"], *(key[side] for side in ("x", "y", "width", "height"))]
        for region in extract_key_frames(prediction["result"])
        for key in region["value"]["sequence"]
    ]
    return {"errors": errors, "rows": rows}


if __name__ == "__main__":
    read = {"datumaro": datumaro, "labelstudio": labelstudio}[sys.argv[1]]
    print(json.dumps(read(*sys.argv[2:])))
