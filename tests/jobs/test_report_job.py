"""`vsdmot report`: what it prints and its exit codes."""

import pytest

from jobs.__main__ import main
from tests.pipeline.report.runs import Clip, write_run


def test_the_last_line_is_the_address_of_the_page(tmp_path, capsys):
    output = write_run(tmp_path, [Clip("a.mp4"), Clip("b [x].mp4", made=False)], listed=3)
    (output / "frames" / "b [x].parquet").unlink()
    assert main(["report", str(output), f"report={tmp_path / 'my page'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no page for b [x].mp4" in lines[-4]
    assert lines[-3] == "2 videos, 1 of them with a page of their own"
    assert lines[-2] == "partial: 1 of the files without a result yet; make the page again later"
    assert lines[-1] == (tmp_path / "my page" / "index.html").as_uri()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{folder}"], 2, "no run.json here"),
        (["{output}", "videos=[nobody]"], 2, "nobody is none of the 1 videos"),
        (["{output}", "player=both"], 2, "player: both was given"),
        (["{output}", "report={output}/run.json"], 1, "choose another path"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path, capsys, words, code, message):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    (tmp_path / "empty").mkdir()
    given = [word.format(folder=tmp_path / "empty", output=output) for word in words]
    with pytest.raises(SystemExit) as leaving:
        main(["report", *given])
    assert leaving.value.code == code
    assert message in capsys.readouterr().err
