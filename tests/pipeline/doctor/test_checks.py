"""Each check of the doctor with the real failure that it is for."""

import base64
import http.server
import json
import os
import socket
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import boto3
import pytest
from packaging.requirements import Requirement
from s3fs import S3FileSystem

from jobs.__main__ import main
from pipeline.doctor import services
from pipeline.doctor.codecs import CODECS, Codec, browser_encoder, decoded
from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.folders import graph_folder, temporary_folder
from pipeline.doctor.hardware import check_gpu, memory, shared_memory
from pipeline.doctor.packages import check_packages, installed, locked, pins, required
from pipeline.doctor.services import check_mlflow, check_ports, check_ray
from pipeline.doctor.stores import Unreachable, check_input, check_output
from pipeline.doctor.student import check_student, runtime
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.speed.archives.s3_server import s3_client, s3_server
from tests.videos import cut, write_video


@pytest.fixture
def mounted(tmp_path):
    """Mounts small file systems in memory; skips where this user may not."""
    folders = []

    def mount(options):
        folder = tmp_path / f"mount-{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this user may not mount: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


def only(findings):
    """The state, text and remedy of the one finding that is not ok."""
    found = [finding for finding in findings if finding.state != "ok"]
    assert len(found) == 1, found
    return found[0].state, found[0].found, found[0].remedy


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Packages, machine


def test_the_packages_of_this_environment_are_those_that_are_asked_for():
    states = {finding.name: finding.state for finding in check_packages(DoctorConfig())}
    assert states["python"] == states["packages"] == "ok"
    assert "lock" in states


def test_packages_that_are_missing_or_old_are_a_problem():
    asked = [Requirement("numpy>=99"), Requirement("no-such-package"), Requirement("rich>=1")]
    state, found, remedy = only([required(asked)])
    assert (state, found) == (
        "problem", f"numpy: {installed('numpy')}, wanted >=99; no-such-package: missing",
    )  # fmt: skip
    assert "make setup" in remedy


def test_other_versions_than_in_the_lock_are_a_warning(tmp_path):
    lock = tmp_path / "some.lock"
    lock.write_text(f"numpy==1.0.0\nrich=={installed('rich')}\nno-such-package==1\n--option\n")
    state, found, _ = only([locked(pins(lock), lock)])
    assert state == "warning"
    assert found == (f"other versions than in some.lock: numpy {installed('numpy')} (not 1.0.0)")


def test_memory_for_one_worker_for_some_and_for_all():
    assert [memory(gigabytes * 1e9, 4).state for gigabytes in (1, 4, 8)] == [
        "problem", "warning", "ok",
    ]  # fmt: skip
    assert "enough for 2 of 4 workers" in memory(4e9, 4).found


def test_little_shared_memory_is_a_warning(mounted, tmp_path):
    state, found, remedy = only([shared_memory(mounted("size=1m"))])
    assert (state, "--shm-size" in remedy, "0.00 GB free" in found) == ("warning", True, True)
    assert shared_memory(tmp_path / "none").state == "ok"


def test_a_gpu_that_torch_cannot_use_is_a_problem(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100, 470.01, 81559 MiB'\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    state, found, remedy = only(check_gpu(DoctorConfig()))
    assert (state, "NVIDIA H100, 470.01" in found) == ("problem", True)
    assert ("driver" in remedy) if torch.version.cuda else ("build of torch" in remedy)
    driver.write_text("#!/bin/sh\necho 'Driver/library version mismatch' >&2\nexit 18\n")
    (finding,) = check_gpu(DoctorConfig())
    assert finding.state == "ok"
    assert "Driver/library version mismatch" in finding.found


# Codecs, weights


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_clip_of_each_codec_is_decoded(codec):
    finding = decoded(codec)
    assert (finding.state, finding.found.endswith("is decoded")) == ("ok", True)


def test_a_codec_that_is_missing_is_a_problem_and_one_that_cannot_be_made_is_not_tried():
    state, found, remedy = only([decoded(Codec("New", "nobody_wrote_it", ()))])
    assert (state, found) == ("problem", "there is no decoder nobody_wrote_it")
    assert "pip install" in remedy
    assert "not tried" in decoded(Codec("H.264", "h264", ("nobody_wrote_it",))).found
    assert browser_encoder("nobody_wrote_it").state == "warning"


def test_weights_that_are_broken_or_missing_are_a_problem(weights, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(Path(weights).read_bytes())
    cut(broken, 0.5)
    for path in (broken, tmp_path / "none.safetensors"):
        state, found, remedy = only(check_student(DoctorConfig(weights=str(path))))
        assert (state, path.name in found, "weights=FILE" in remedy) == ("problem", True, True)


def test_good_weights_are_opened_and_see_a_frame(weights):
    read, runs = check_student(DoctorConfig(weights=str(weights)))
    assert (read.state, runs.state) == ("ok", "ok")
    assert runs.found.startswith("openvino")
    assert runtime("torch 2.0, exact: OpenVINO cannot take this model").state == "warning"


# Folders and stores


def test_an_output_on_a_read_only_disk_is_a_problem(mounted):
    folder = mounted("ro,size=1m")
    state, found, remedy = only(check_output(DoctorConfig(output=str(folder / "new" / "run"))))
    assert (state, str(folder) in found) == ("problem", True)
    assert remedy == "the disk is read-only; choose an output on another disk"


def test_a_full_disk_is_a_problem(mounted, monkeypatch):
    folder = mounted("size=8k")
    (folder / "full").write_bytes(bytes(8192))
    state, _, remedy = only(check_output(DoctorConfig(output=str(folder))))
    assert (state, "free some space" in remedy) == ("problem", True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    state, found, remedy = only([temporary_folder()])
    assert (state, "No space left" in found, "TMPDIR" in remedy) == ("problem", True, True)
    state, found, remedy = only([graph_folder(folder / "vsdmot")])
    assert (state, "XDG_CACHE_HOME" in remedy) == ("warning", True)


def test_an_output_that_can_be_written_is_left_as_it_was(tmp_path):
    names = [f.name for f in check_output(DoctorConfig(output=str(tmp_path / "a" / "b")))]
    assert names == ["output", "output disk"]
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_is_missing_empty_or_has_gaps(tmp_path):
    state, found, _ = only(check_input(DoctorConfig(input=str(tmp_path / "none"))))
    assert (state, "none" in found) == ("problem", True)
    state, found, _ = only(check_input(DoctorConfig(input=str(tmp_path))))
    assert (state, "no video" in found) == ("problem", True)
    write_video(tmp_path / "a.mp4", frames=2)
    assert [f.state for f in check_input(DoctorConfig(input=str(tmp_path)))] == ["ok"]
    (tmp_path / "list.txt").write_text("a.mp4\ngone.mp4\n")
    state, found, _ = only(check_input(DoctorConfig(input=f"@{tmp_path}/list.txt")))
    assert (state, "1 cannot be: gone.mp4" in found) == ("warning", True)
    gone = "".join(f"gone-{number}.mp4\n" for number in range(200))
    (tmp_path / "list.txt").write_text(f"{gone}a.mp4\n")
    state, found, _ = only(check_input(DoctorConfig(input=f"@{tmp_path}/list.txt")))
    assert (state, "none of the first 100 files can be read: gone-0" in found) == ("problem", True)


_CALLS = 8  # that moto takes without keys: 7 below and one of `s3_server`


@pytest.fixture(scope="module")
def store():
    """Address of an S3 server that checks keys, and keys of a user with and one without rights."""
    before = os.environ.get("INITIAL_NO_AUTH_ACTION_COUNT")
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(_CALLS)
    try:
        with s3_server() as url:
            s3 = s3_client(url)
            s3.create_bucket(Bucket="cams")
            s3.put_object(Bucket="cams", Key="2024/a.mp4", Body=b"1234")
            iam = boto3.client(
                "iam", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test",
                region_name="us-east-1",
            )  # fmt: skip
            keys = {}
            for user in ("may", "may_not"):
                iam.create_user(UserName=user)
                made = iam.create_access_key(UserName=user)["AccessKey"]
                keys[user] = made["AccessKeyId"], made["SecretAccessKey"]
            every = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [every]})
            iam.put_user_policy(UserName="may", PolicyName="all", PolicyDocument=policy)
            yield url, keys
    finally:
        if before is None:
            del os.environ["INITIAL_NO_AUTH_ACTION_COUNT"]
        else:
            os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = before


@pytest.fixture
def credentials(store, monkeypatch):
    """Puts keys and an address into the environment."""
    url, keys = store

    def give(name, address=url, secret=None):
        key = keys.get(name, ("AKIAWRONGWRONGWRONG1", "wrong-secret"))
        values = {
            "ACCESS_KEY_ID": key[0], "SECRET_ACCESS_KEY": secret or key[1],
            "ENDPOINT_URL": address, "DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        for each, value in values.items():
            monkeypatch.setenv(f"AWS_{each}", value)
        S3FileSystem.clear_instance_cache()
        return DoctorConfig(input="s3://cams/2024/", output="s3://cams/tracks/")

    yield give
    S3FileSystem.clear_instance_cache()


def test_a_bucket_that_may_be_read_and_written(credentials, store):
    config = credentials("may")
    findings = [*check_input(config), *check_output(config)]
    assert {finding.state for finding in findings} == {"ok"}
    url, keys = store
    s3 = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=keys["may"][0],
        aws_secret_access_key=keys["may"][1], region_name="us-east-1",
    )  # fmt: skip
    listed = s3.list_objects_v2(Bucket="cams")["Contents"]
    assert [entry["Key"] for entry in listed] == ["2024/a.mp4"]


@pytest.mark.parametrize("name", ["may_not", "nobody"])
def test_wrong_keys_and_missing_rights_are_a_problem_for_input_and_output(credentials, name):
    config = credentials(name)
    for check in (check_input, check_output):
        state, found, remedy = only(check(config))
        assert (state, "s3://cams" in found, "credentials" in remedy) == ("problem", True, True)
        assert "wrong-secret" not in found + remedy


def test_a_plan_for_a_bucket_without_rights_says_so(credentials, capsys):
    credentials("may_not")
    with pytest.raises(SystemExit) as leaving:
        main(["plan", "s3://cams/2024/"])
    assert leaving.value.code == 1
    assert "check that the credentials in use may list" in capsys.readouterr().err


def test_a_store_that_does_not_answer_is_told_at_once(credentials):
    config = credentials("may", address=f"http://127.0.0.1:{closed_port()}")
    for check in (check_input, check_output):
        with pytest.raises(Unreachable, match="nothing answers at 127"):
            list(check(config))


# Services

_LOGIN = f"Basic {base64.b64encode(b'me:a/word').decode()}"


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Authorization", _LOGIN)
        self.send_response(200 if asked == _LOGIN else 401)
        self.end_headers()
        self.wfile.write(b"OK" if self.path == "/mlflow/health" else b"<html>another server")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served.server_address[1]
    served.shutdown()
    served.server_close()


def log_at(uri):
    return DoctorConfig(mlflow=MlflowConfig(uri=uri))


def test_the_server_of_the_log_answers_is_another_one_or_is_not_there(server):
    (finding,) = check_mlflow(log_at(f"http://127.0.0.1:{server}/mlflow"))
    assert finding.state == "ok"
    state, found, _ = only(check_mlflow(log_at(f"http://127.0.0.1:{server}")))
    assert (state, "not as MLflow does" in found) == ("warning", True)
    (finding,) = check_mlflow(log_at(f"http://me:a%2Fword@127.0.0.1:{server}/mlflow"))
    assert finding.state == "ok"
    state, found, _ = only(check_mlflow(log_at(f"http://me:other@127.0.0.1:{server}/mlflow")))
    assert (state, "answers 401" in found, "other" in found) == ("warning", True, False)
    address = f"http://user:secret-word@127.0.0.1:{closed_port()}"
    state, found, remedy = only(check_mlflow(log_at(address)))
    assert (state, "mlflow.enabled=false" in remedy) == ("warning", True)
    assert "secret-word" not in found


def test_the_file_of_the_log_on_a_read_only_disk_is_a_warning(mounted):
    folder = mounted("ro,size=1m")
    state, found, _ = only(check_mlflow(log_at(f"sqlite:///{folder}/mlflow.db")))
    assert (state, str(folder) in found) == ("warning", True)


def test_a_port_that_is_taken_is_a_warning(server, monkeypatch):
    free = closed_port()
    monkeypatch.setattr(services, "PORTS", {server: "some server", free: "another"})
    state, found, _ = only(check_ports(DoctorConfig()))
    assert (state, "for some server" in found) == ("warning", True)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_told_at_once(scheme):
    config = DoctorConfig(cluster=ClusterConfig(address=f"{scheme}127.0.0.1:{closed_port()}"))
    with pytest.raises(Unreachable, match="ray start --head"):
        list(check_ray(config))
