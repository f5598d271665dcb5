"""Compaction in a bucket of a real S3 server process."""

from itertools import count
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipeline.compaction import removal
from pipeline.compaction.run import CompactionRefused
from pipeline.speed.archives.s3_server import s3_client, s3_server
from pipeline.storage.compacted import MERGED, compacted_ids, newest_commit
from pipeline.storage.files import create_if_absent
from tests.pipeline.compaction.conftest import KilledError, everything, of, on_write, run


@pytest.fixture(scope="module")
def s3():
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ENDPOINT_URL": url,
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "DEFAULT_REGION": "us-east-1",
            "EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(f"AWS_{name}", value)
        S3FileSystem.clear_instance_cache()
        client = s3_client(url)
        client.create_bucket(Bucket="results")
        yield client
    S3FileSystem.clear_instance_cache()


def upload(s3, made, prefix, videos):
    s3.upload_file(str(made.folder / "run.json"), "results", f"{prefix}/run.json")
    for video_id in videos:
        for table in MERGED:
            source = Path(made.folder, table, f"{video_id}.parquet")
            if source.exists():
                s3.upload_file(str(source), "results", f"{prefix}/{table}/{source.name}")


def keys(s3, prefix):
    listed = s3.list_objects_v2(Bucket="results", Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in listed]


def test_in_a_bucket_as_on_a_disk(made, whole, s3, monkeypatch):
    output, videos = "s3://results/disk", made.videos[:4]
    upload(s3, made, "disk", videos[:3])
    monkeypatch.setattr(removal, "PAGE", 4)  # several requests for what one would do
    assert run(output, "folder").videos == 3
    assert everything(output) == of(whole, videos[:3])
    upload(s3, made, "disk", videos[2:])  # the first of them from a slow second driver
    assert run(output, "folder").videos == 1
    assert everything(output) == of(whole, videos)
    assert sorted(compacted_ids(output)) == sorted(videos)
    assert not [key for table in MERGED for key in keys(s3, f"disk/{table}/")]
    sets = newest_commit(output).sets
    assert len(keys(s3, "disk/compacted/")) == len(sets) * len(MERGED) + 1


def test_killed_in_a_bucket(made, whole, s3, monkeypatch):
    """Before a file, before the commit, and before files are removed."""
    videos = made.videos[:3]
    upload(s3, made, "killed", videos)
    output = "s3://results/killed"

    def die(*_):
        raise KilledError

    for kill in (3, 6):
        changes = count(1)
        with monkeypatch.context() as patch:
            on_write(patch, lambda n=kill, c=changes: die() if next(c) == n else None)
            with pytest.raises(KilledError):
                run(output, file_mb=100)
        assert everything(output) == of(whole, videos)
    with monkeypatch.context() as patch:
        patch.setattr(
            removal, "_remove_objects", lambda fs, uris: die() if "/videos/0" in uris[0] else 0
        )
        patch.setattr(removal, "PAGE", 1)
        with pytest.raises(KilledError):
            run(output, file_mb=100)
    assert everything(output) == of(whole, videos)
    run(output, file_mb=100)
    assert everything(output) == of(whole, videos)
    assert not [key for table in MERGED for key in keys(s3, f"killed/{table}/")]


def test_two_at_once_in_a_bucket(made, whole, s3, monkeypatch):
    videos = made.videos[:2]
    upload(s3, made, "twice", videos)
    output, begun = "s3://results/twice", []

    def begin_another(uri, data, conditional=True):
        if uri.endswith("00000002.json") and not begun:
            begun.append(True)
            run(output)
        return create_if_absent(uri, data, conditional)

    monkeypatch.setattr("pipeline.storage.files.create_if_absent", begin_another)
    with pytest.raises(CompactionRefused, match="another vsdmot compact"):
        run(output)
    assert begun
    assert everything(output) == of(whole, videos)
    run(output)
    assert everything(output) == of(whole, videos)
