"""The progress of a run in a notebook: a bar in the cell, drawn by a real kernel."""

import json
import re

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from pipeline.runtime import progress
from pipeline.runtime.progress import RunDisplay
from tests import ROOT

CELL = """
import threading
from rich.console import Console
from pipeline.runtime.progress import RunDisplay

with RunDisplay(Console(), lambda display: None) as display:
    display.expect(2, 20)
    display.frames_at(5)
    display.video_finished(10, 10)
    # On a cluster a thread asks for the frames.
    thread = threading.Thread(target=display.frames_at, args=(15,))
    thread.start()
    thread.join()
    display.video_finished(10, 10)
"""


@pytest.mark.slow
def test_a_bar_in_a_cell():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    shown = json.dumps(notebook.cells[0].outputs) + json.dumps(notebook.metadata.get("widgets", {}))
    text = re.sub(r"<[^>]*>", "", shown)  # colours
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "2/2 videos" in text
    assert "20/20" in text
    assert "time left" not in shown  # no lines beside the bar


def test_lines_where_a_notebook_has_no_widgets(monkeypatch, capsys):
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    console = Console(force_jupyter=True)
    said = []
    monkeypatch.setattr(console, "print", lambda text, **options: said.append(text))
    with RunDisplay(console, lambda display: None) as display:
        display.expect(1, 10)
        display.video_finished(10, 10)
    assert said[-1].startswith("1/1 videos, 10/10 frames")
