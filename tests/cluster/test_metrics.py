"""The board of Grafana: valid, and what it asks for is what a run on Ray offers to Prometheus."""

import json
import re
import socket
import time
import urllib.request

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests import ROOT
from tests.videos import write_video

BOARD = ROOT / "configs" / "grafana" / "vsdmot.json"
SAMPLE = re.compile(r"^(ray_vsdmot_\w+)(?:\{(.*)\})? ", re.MULTILINE)
# Labels that Ray adds to all metrics; none of them has a value for each video.
RAY = {
    "Component", "JobId", "NodeAddress", "NodeId", "SessionName", "Version", "WorkerId",
    "otel_scope_name", "otel_scope_schema_url", "otel_scope_version",
}  # fmt: skip


def board():
    return json.loads(BOARD.read_text())


def queries():
    return [target["expr"] for panel in board()["panels"] for target in panel["targets"]]


def asked():
    """Metrics of the queries, each with the stages and outcomes that are named."""
    return set(re.findall(r"ray_vsdmot_\w+", " ".join(queries())))


def through(values):
    """Values as Grafana's own types read and write them."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(values)))


def lost(before, after, path="board"):
    """Paths of what is not the same after reading and writing."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from lost(*pair, f"{path}[{number}]")
    elif before != after:
        yield path


def test_grafana_reads_the_whole_board():
    values = board()
    assert not list(lost(values, through(values)))
    values["panels"][0]["gridPoss"] = {"x": 0}
    assert list(lost(values, through(values))) == ["board.panels[0].gridPoss"]


def test_panels_do_not_overlap():
    taken = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in board()["panels"]}) == len(board()["panels"])


@pytest.mark.slow
def test_a_run_offers_what_the_board_asks_for(weights, tmp_path):
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `cluster`")
    import ray

    from jobs.track import main
    from pipeline.runtime.ray_cluster import on_loopback
    from pipeline.runtime.stage_metrics import FRAME_STAGES, TIME_STAGES

    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=30)
    write_video(tmp_path / "in" / "b.mp4", frames=20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = {}
    with on_loopback():
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            _metrics_export_port=port,
            _system_config={"metrics_report_interval_ms": 500},
            logging_level="ERROR",
        )
    try:
        given = f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", f"weights={weights}"
        assert main([*given, "mlflow.enabled=false", "report=false", "cluster.workers=1"]) == 0
        deadline = time.monotonic() + 60
        while not asked() <= found.keys() and time.monotonic() < deadline:
            time.sleep(0.5)
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                for name, labels in SAMPLE.findall(answer.read().decode()):
                    given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                    found.setdefault(name, []).append(given)
    finally:
        ray.shutdown()
    assert asked() <= found.keys()
    # Each stage is there, and no label has more values than the stages.
    labels = {name: {key for each in seen for key in each} - RAY for name, seen in found.items()}
    assert set().union(*labels.values()) <= {"stage", "outcome"}
    for name, stages in (("frames", FRAME_STAGES), ("stage_seconds", TIME_STAGES)):
        assert {each["stage"] for each in found[f"ray_vsdmot_{name}_total"]} == set(stages)
    assert {each["outcome"] for each in found["ray_vsdmot_videos_total"]} == {"ok"}
