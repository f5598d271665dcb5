"""A real S3 server with a proxy in front that fails requests: every video once, or one error."""

import signal

import pytest
from s3fs import S3FileSystem

from pipeline.speed.archives.s3_server import s3_client, s3_server
from pipeline.storage import errors as storage_errors
from pipeline.storage import file_systems
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from tests.faults.proxy import FAULTS, FaultyProxy
from tests.videos import write_video

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def server():
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def bucket(server, archive):
    s3 = s3_client(server, SECRET)
    s3.create_bucket(Bucket="cams")
    for path in archive.rglob("*.m*"):
        s3.upload_file(str(path), "cams", f"in/{path.relative_to(archive)}")
    return s3


@pytest.fixture
def environment(tmp_path):
    def of(url):
        return {
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        }

    return of


@pytest.fixture
def proxied(server, environment, monkeypatch):
    """A proxy, and this process set up to go through it."""
    proxy = FaultyProxy(server, seed=1, rate=0.0)
    for name, value in environment(proxy.url).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.close()
    S3FileSystem.clear_instance_cache()


def by_path(rows):
    """Rows with the path in place of the id, which holds the store's tag."""
    paths = {row["video_id"]: row["relative_path"] for t in ("videos", "dead_letters")
             for row in rows[t]}  # fmt: skip
    return {t: [row | {"video_id": paths[row["video_id"]]} for row in rows[t]] for t in rows}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_bucket_that_fails_one_request_in_four(
    drivers, command, bucket, server, environment, reference, stopwatch, tmp_path,
    monkeypatch, request, seed,
):  # fmt: skip
    from tests.faults import invariant

    proxy = FaultyProxy(server, seed, 0.25)
    output = f"s3://cams/out{seed}"
    argv = command(output, source="s3://cams/in/")
    code, said = drivers.run(argv, ("probe_here", ()), **environment(proxy.url))
    seconds, requests = stopwatch(), dict(proxy.done)
    proxy.close()
    assert code == 3, said
    assert SECRET not in said
    assert len(requests) == len(FAULTS), "too few faults to mean anything"
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    seen = invariant.read(output)
    got, want = by_path(seen), by_path(reference)
    lost = twice = 0
    for table, key in invariant.KEYS.items():
        names = invariant.STABLE.get(table, tuple(want[table][0]))
        have = [tuple(row[name] for name in names) for row in got[table]]
        expected = [tuple(row[name] for name in names) for row in want[table]]
        lost += len(set(expected) - set(have))
        twice += len(have) - len({tuple(row[name] for name in key) for row in got[table]})
        assert sorted(map(str, have)) == sorted(map(str, expected)), table
    injected = f"{sum(requests.values())} failed requests, seed {seed}"
    invariant.ROWS.append(("bucket that fails", injected, lost, twice, seconds))
    assert (lost, twice) == (0, 0)
    assert SECRET not in storage.read_bytes(f"{output}/run.json").decode()


def test_store_that_stays_down_is_one_clear_error(proxied, bucket, monkeypatch):
    monkeypatch.setattr(storage_errors, "_WAIT", lambda state: 0.01)
    assert storage.exists("s3://cams/in/a.mp4")
    proxied.down = True
    with pytest.raises(StorageError, match=r"s3://cams/in/a\.mp4: .*tried several times") as caught:
        storage.read_bytes("s3://cams/in/a.mp4")
    assert SECRET not in str(caught.value)


def test_expired_credentials_are_fetched_anew(proxied, bucket, monkeypatch):
    refreshed = []
    real = S3FileSystem.connect

    def connect(self, **options):
        refreshed.append(options)
        return real(self, **options)

    monkeypatch.setattr(S3FileSystem, "connect", connect)
    answers = iter(["", "expired"])
    proxied._next = lambda: next(answers, "")
    assert storage.read_bytes("s3://cams/in/a.mp4")
    assert {"refresh": True} in refreshed


def test_create_whose_answer_is_lost_is_ours(proxied, bucket):
    faults = iter(["lost_answer"])
    proxied._next = lambda: next(faults, "")
    assert storage.create_if_absent("s3://cams/commit/v1", b"mine")
    assert not storage.create_if_absent("s3://cams/commit/v1", b"theirs")
    assert storage.read_bytes("s3://cams/commit/v1") == b"mine"


def test_whether_a_store_creates_once_is_probed(proxied, bucket):
    assert storage.creates_once("s3://cams/probe")
    proxied.no_conditions = True
    assert not storage.creates_once("s3://cams/probe")
    assert storage.create_if_absent("s3://cams/probe/v", b"1", conditional=False)
    assert not storage.create_if_absent("s3://cams/probe/v", b"2", conditional=False)
    assert storage.list_stems("s3://cams/probe", "") == {"v"}  # the probe took its file away


def test_upload_in_parts_is_whole_or_not_there(proxied, bucket, tmp_path, monkeypatch):
    """Parts fail and are sent again; the answer that completes them is lost once."""
    monkeypatch.setattr(storage, "_PART", 5 << 20)
    data = bytes(range(256)) * 50_000  # 12.8 MB: three parts
    path = tmp_path / "rows"
    path.write_bytes(data)
    completed = []
    chance, real = FaultyProxy._next, proxied.handle

    def handle(request):
        last = request.command == "POST" and "uploadId" in request.path
        if last:
            completed.append(storage.list_stems("s3://cams/parts", ""))
        proxied._next = lambda: "lost_answer" if last and len(completed) == 1 else chance(proxied)
        real(request)

    monkeypatch.setattr(proxied, "handle", handle)
    proxied.rate = 0.2
    with path.open("rb") as source:
        storage.publish("s3://cams/parts/rows", source)
    proxied.rate = 0.0
    assert completed[0] == set()  # until the last request there is no file
    assert len(completed) > 1
    assert storage.read_bytes("s3://cams/parts/rows") == data


def test_a_read_goes_on_where_it_broke(proxied, bucket, tmp_path):
    data = bytes(range(256)) * 40_000  # 10 MB: several range requests
    bucket.put_object(Bucket="cams", Key="long/a.bin", Body=data)
    faults = iter(["", "", "cut_body", "", "reset", "500", "", "slow_body"])
    proxied._next = lambda: next(faults, "")
    with storage.open_binary("s3://cams/long/a.bin") as file:
        parts = []
        while part := file.read(700_000):
            parts.append(part)
        assert b"".join(parts) == data
        file.seek(5_000_000)
        assert file.read(10) == data[5_000_000:5_000_010]


def test_header_is_read_without_the_whole_file(proxied, bucket, tmp_path, monkeypatch):
    options = {"movflags": "faststart"}
    path = write_video(tmp_path / "a.mp4", frames=4, container_options=options)
    with path.open("ab") as file:
        file.write(b"\0\0\0\x08free" * 3_000_000)  # 24 MB that no one has to read
    bucket.upload_file(str(path), "cams", "big/a.mp4")
    sent, answer = [], proxied._answer

    def counted(request, status, headers, data, fault=""):
        sent.append(len(data) if request.command == "GET" else 0)
        answer(request, status, headers, data, fault)

    monkeypatch.setattr(proxied, "_answer", counted)
    with storage.open_binary("s3://cams/big/a.mp4") as file:
        assert file.read(8)[4:] == b"ftyp"
    assert 0 < sum(sent) < 6_000_000


def test_names_in_a_folder_are_those_of_files_and_folders(proxied, bucket, monkeypatch):
    monkeypatch.setattr(file_systems, "PAGE", 2)
    for key in ("a/0.json", "a/1.json", "a.json", "b/deep/0.json", "c.json"):
        bucket.put_object(Bucket="cams", Key=f"names/{key}", Body=b"x")
    assert storage.list_stems("s3://cams/names", "") == {"a", "a.json", "b", "c.json"}
    assert storage.list_stems("s3://cams/names", ".json") == {"a", "c"}
    assert storage.list_stems("s3://cams/none") == set()


def test_listing_comes_page_by_page(proxied, bucket, monkeypatch):
    monkeypatch.setattr(file_systems, "PAGE", 10)
    odd = ["../up.mp4", "a//b.mp4", "/root.mp4", "CON.mp4", "x\u202ey.mp4", "folder.mp4/"]
    for key in odd + [f"{number:05}.txt" for number in range(20)]:
        bucket.put_object(Bucket="cams", Key=f"many/{key}", Body=b"x")
    pages, answer = [], proxied._answer

    def counted(request, *arguments, **options):
        if "list-type=2" in request.path and "max-keys=10" in request.path:
            pages.append(request.path)
        answer(request, *arguments, **options)

    monkeypatch.setattr(proxied, "_answer", counted)
    files = storage.list_videos("s3://cams/many/")
    found = [next(files).relative_path]
    assert len(pages) == 1
    found += [file.relative_path for file in files]
    assert len(pages) == 3
    assert found == sorted(odd[:-1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["resume", "parallel"])
def test_parts_in_a_bucket(
    drivers, command, server, bucket, environment, holds, stopwatch, tmp_path, mode
):
    """Killed before a part is whole, in a bucket that fails one request in ten."""
    from tests.faults import invariant

    path = write_video(tmp_path / "long.mp4", frames=120)
    split = f"split.mode={mode}", "split.seconds=1", "split.overlap_s=0.4"
    undisturbed = command(tmp_path / "undisturbed", *split, source=path)
    code, said = drivers.run(undisturbed, ("probe_here", ()))
    assert code == 0, said
    expected = invariant.read(str(tmp_path / "undisturbed"))

    proxy = FaultyProxy(server, 1, 0.1)
    argv = command(f"s3://cams/parts-{mode}", *split, source=path)
    words = "2.state" if mode == "resume" else "w2of4.json"
    code, said = drivers.run(argv, ("kill_at", (words,)), **environment(proxy.url))
    assert code == -signal.SIGKILL, said
    started = stopwatch()
    code, said = drivers.run(argv, ("probe_here", ()), **environment(proxy.url))
    proxy.close()
    assert code == 0, said
    folder = tmp_path / "out"
    folder.mkdir()
    for item in bucket.list_objects_v2(Bucket="cams", Prefix=f"parts-{mode}/")["Contents"]:
        copy = folder / item["Key"].partition("/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file("cams", item["Key"], str(copy))
    assert not (folder / "parts").exists()
    holds(folder, f"SIGKILL before {words}, 1 request in 10", stopwatch() - started, expected)
