"""A place where blocks of the documentation run: `/my/…` of the pages lies in a folder of its own.

There are videos, one of them broken, a run that tracked them with a tiny student, labelled
sequences and stills, shards, and a bucket. What a block changes, no other block sees.
"""

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from jobs.cli import EXIT_DEAD_LETTERS, EXIT_DONE
from tests import ROOT
from tests.docs.shell import Call, calls, needs_help
from tests.training_parts import write_shards
from tests.videos import cut, write_text, write_video

_QUICK = {
    "track": ("cluster.workers=0", "mlflow.enabled=false", "report=false"),
    "plan": ("cluster.workers=0", "mlflow.enabled=false", "plan.seconds=1"),
    "compact": ("keep_s=0",),
    "distill": ("mlflow.enabled=false",),
    "train": ("mlflow.enabled=false",),
}
"""Settings that a block need not give, put before its own."""
_TRACK = ("track", "plan")  # they take the tiny student


class Place:
    """A working directory with all that blocks of the documentation speak of."""

    def __init__(self, folder: Path, weights: Path, monkeypatch, s3):
        self.folder, self._weights, self._patch, self._s3 = folder, weights, monkeypatch, s3
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(folder))

    def text(self, text: str) -> str:
        """The text of a block with the paths of this place."""
        if "s3://" in text:
            self._s3(self._patch)
        return text.replace("/my/", f"{self.folder}/my/")

    def shell(self, text: str) -> None:
        """Run the commands of a shell block; each has to succeed."""
        for call in calls(self.text(text)):
            if call.job:
                self._job(call)
            else:
                subprocess.run(["bash", "-euc", call.line], check=True, timeout=60)

    def check(self, text: str) -> None:
        """Check the settings of all jobs in a shell block, without running anything."""
        for call in calls(text):
            if call.job and not needs_help(call):
                call.config()

    def _job(self, call: Call) -> None:
        quick = _QUICK.get(call.job, ())
        if call.job in _TRACK:
            quick += (f"weights={self._weights}",)
            # A run with other settings may be there.
            if call.job == "track" and not needs_help(call):
                shutil.rmtree(call.config().output, ignore_errors=True)
        try:
            code = import_module(f"jobs.{call.job}").main([*quick, *call.arguments])
        except SystemExit as leaving:
            code = leaving.code
        assert code in (EXIT_DONE, EXIT_DEAD_LETTERS), f"{call.line}: exit code {code}"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, weights):
    """The folder that `/my` is a copy of."""
    from jobs.track import main
    from pipeline.datasets.synthetic import make_synthetic

    my = tmp_path_factory.mktemp("prepared") / "my"
    videos = my / "videos"
    videos.mkdir(parents=True)
    write_video(videos / "bikes.mp4", frames=30)
    cut(write_video(videos / "yard.avi", frames=40), 0.6)
    write_text(videos / "broken.mp4")
    quick = [*_QUICK["track"], f"weights={weights}"]
    assert main([str(videos), str(my / "tracks"), *quick]) == EXIT_DEAD_LETTERS
    shutil.copytree(my / "tracks", my / "merged")
    assert import_module("jobs.compact").main([str(my / "merged"), "keep_s=0"]) == EXIT_DONE
    make_synthetic(my / "MOT" / "train", sequences=1, frames=4, people=2)
    _write_stills(my)
    write_shards(my / "shards", val=1)
    return my


def _write_stills(folder: Path) -> None:
    (folder / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (80, 60), (100, 110, 120)).save(folder / "images" / name)
    stills = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "split": "train"},
            {"id": 2, "file_name": "b.jpg", "split": "val"},
        ],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": [9, 5, 20, 40]} for n in (1, 2)],
    }
    (folder / "coco.json").write_text(json.dumps(stills))


@pytest.fixture(scope="session")
def s3(prepared):
    """Points the environment at a server with a bucket of videos, which is started when needed."""
    from s3fs import S3FileSystem

    from pipeline.speed.archives.s3_server import s3_client, s3_server

    started: list[str] = []
    with ExitStack() as stack:

        def use(monkeypatch) -> None:
            if not started:
                started.append(stack.enter_context(s3_server()))
                client = s3_client(started[0])
                client.create_bucket(Bucket="bucket")
                for path in (prepared / "videos").iterdir():
                    client.upload_file(str(path), "bucket", f"2024/{path.name}")
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                monkeypatch.delenv(name)
            given = {"ENDPOINT_URL": started[0], "DEFAULT_REGION": "us-east-1"}
            given |= {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
            for name, value in given.items():
                monkeypatch.setenv(f"AWS_{name}", value)
            S3FileSystem.clear_instance_cache()

        yield use
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def place(prepared, weights, tmp_path, monkeypatch, s3):
    """A fresh place for one block."""
    shutil.copytree(prepared, tmp_path / "my")
    shutil.copy(prepared / "videos" / "bikes.mp4", tmp_path / "my.mp4")
    for name in (".venv", "weights", "configs", "examples"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    return Place(tmp_path, weights, monkeypatch, s3)
