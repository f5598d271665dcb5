"""The Slurm script with commands of Slurm that run everything on this machine, on a real Ray."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster.commands import SLURM
from tests.videos import write_video

SRUN = """#!/bin/bash
# Runs the command once, as on one node: options are those before it. Ray listens on loopback alone.
while [[ $1 == --* ]]; do shift; done
[[ $1 == hostname ]] && { echo "127.0.0.1 10.0.0.1"; exit; }
echo "$*" >> "$CALLS"
exec "$@" --node-ip-address=127.0.0.1
"""
SCONTROL = """#!/bin/bash
[[ "$1 $2 $3" == "show hostnames node[1-2]" ]] || exit 1
printf 'node1\\nnode2\\n'
"""


@pytest.fixture
def slurm(tmp_path, weights):
    """The environment of a job on two nodes."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=12)
    programs = tmp_path / "bin"
    programs.mkdir()
    python = Path(sys.executable).parent
    track = f'#!/bin/bash\nexec {python}/vsdmot "$@" weights={weights} report=false\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("vsdmot", track)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}:{python}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "INPUT": str(tmp_path / "in"),
        "OUTPUT": str(tmp_path / "out"),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": str(os.getpid()),
        "RAY_raylet_start_wait_time_s": "180",
    }


@pytest.mark.slow
def test_the_script_leads_two_nodes(slurm, tmp_path):
    said = tmp_path / "said"
    with said.open("w") as log:
        job = subprocess.Popen(
            ["bash", str(SLURM)], env=slurm, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = job.wait(timeout=200)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGTERM)  # Ray too, where the script has not ended
    assert code == 0, said.read_text()
    (table,) = (tmp_path / "out" / "videos").glob("*.parquet")
    assert pq.read_table(table)["frames_decoded"].to_pylist() == [12]
    head, worker = (tmp_path / "calls").read_text().splitlines()
    assert "--head --node-ip-address=127.0.0.1" in head
    assert "--address=127.0.0.1:" in worker


def test_without_an_input_it_says_what_is_missing(slurm):
    environment = {name: value for name, value in slurm.items() if name != "INPUT"}
    done = subprocess.run(
        ["bash", str(SLURM)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "INPUT: give a folder or URL of videos" in done.stderr
