"""The files of configs/cluster: commands, versions and sizes, and what checkers say of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

from tests import ROOT
from tests.cluster.commands import (
    AWS,
    CLUSTER,
    COMPOSE,
    DOCKERFILE,
    KUBERAY,
    SLURM,
    UNIT,
    load,
    locked,
    project,
    settings,
    words,
)

# Fields of ray.io/v1 in the reference that KubeRay generates from its types, those used here.
RAY_JOB = {
    "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec", "submissionMode", "activeDeadlineSeconds", "runtimeEnvYAML",
}  # fmt: skip
RAY_CLUSTER = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs",
}  # fmt: skip
HEAD = {"rayStartParams", "template", "serviceType"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
KUBERNETES = "1.32"


def tool(name):
    """A program that a package of the dev extra brings."""
    return str(Path(sys.executable).parent / name)


def check(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("path", "count"),
    [(AWS, 2), (SLURM, 1), (UNIT, 2), (COMPOSE, 1), *((k, 1) for k in KUBERAY)],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_every_command_exists_and_its_settings_resolve(path, count):
    commands = words(path)
    assert len(commands) == count
    for command in commands:
        settings(command)


def test_every_file_is_looked_at():
    files = {p for p in CLUSTER.rglob("*") if p.is_file()}
    beside = {DOCKERFILE.with_name("Dockerfile.dockerignore"), COMPOSE.with_name("env.example")}
    assert files == {DOCKERFILE, AWS, SLURM, UNIT, COMPOSE, *KUBERAY} | beside


def test_versions_are_those_of_the_project():
    for path in KUBERAY:
        assert load(path)["spec"]["rayClusterSpec"]["rayVersion"] == locked()["ray"]
    text = DOCKERFILE.read_text()
    used = set(re.search(r"\[(\w+(?:,\w+)*)\]\"", text)[1].split(","))
    assert used <= set(project()["optional-dependencies"])
    python = re.search(r"^ARG PYTHON=(.+)$", text, re.MULTILINE)[1]
    least = project()["requires-python"].removeprefix(">=")
    assert tuple(map(int, python.split("."))) >= tuple(map(int, least.split(".")))


def test_the_image_gets_all_that_the_wheel_is_made_of():
    kept = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split()
    assert kept[0].startswith("#")
    for name in ("model", "pipeline", "jobs", "configs", "weights", "setup.py", "pyproject.toml"):
        assert f"!{name}" in kept and (ROOT / name).exists()


def test_the_health_check_of_the_image_is_light():
    """It is asked every five minutes beside the work; tests/jobs/test_start.py keeps it light."""
    assert words(DOCKERFILE) == [["vsdmot", "--help"]]


def test_the_image_has_no_fault_that_a_linter_knows():
    assert check(tool("hadolint"), str(DOCKERFILE)) == ""


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kuberay_takes_the_job(path):
    job = load(path)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
            "spec": group["template"]["spec"],
        }  # fmt: skip
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        container = group["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) <= WORKERS
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = int(limits.get("nvidia.com/gpu", limits["cpu"]))
    least, most = settings(words(path)[0]).cluster.workers
    assert (least, most) == (workers["minReplicas"] * each, workers["maxReplicas"] * each)


def test_a_pod_with_a_misspelt_field_is_refused():
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            pod | {"spec": {"containers": [{"name": "a", "imagee": "b"}]}}, KUBERNETES, strict=True
        )


def test_ray_up_takes_the_cluster():
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    cluster = load(AWS)
    validate_config(fillout_defaults(cluster))
    with pytest.raises(ValidationError):
        validate_config(fillout_defaults(cluster | {"max_worker": 3}))
    spot = cluster["available_node_types"]["spot"]
    track = next(command for command in words(AWS) if command[1] == "track")
    cpus = spot["resources"]["CPU"]
    assert settings(track).cluster.workers == (
        spot["min_workers"] * cpus, spot["max_workers"] * cpus,
    )  # fmt: skip
    assert cluster["max_workers"] == spot["max_workers"]


def test_the_slurm_script_is_clean():
    check("bash", "-n", str(SLURM))
    check(tool("shellcheck"), str(SLURM))


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    unit = tmp_path / UNIT.name
    # Its program is not installed here.
    unit.write_text(UNIT.read_text().replace("/opt/vsdmot/bin/vsdmot", sys.executable))
    check("systemd-analyze", "verify", str(unit))
    broken = tmp_path / "broken.service"
    broken.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(broken)], capture_output=True, text=True, check=False
    )
    assert "gently" in done.stderr


def test_the_compose_file_asks_for_what_it_needs():
    text, example = COMPOSE.read_text(), COMPOSE.with_name("env.example").read_text()
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert asked == {line.rstrip("=") for line in example.splitlines() if line.endswith("=")}
    services = load(COMPOSE)["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for mount in service.get("volumes", ()):
            assert mount.partition(":")[0] in load(COMPOSE)["volumes"]
