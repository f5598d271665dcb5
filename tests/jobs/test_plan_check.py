"""A plan beside the run that it is for."""

import pytest

from jobs.plan_check import PlanCheckConfig, compare, main
from tests.videos import write_text, write_video


@pytest.mark.slow
def test_a_plan_comes_near_to_the_run(weights, tmp_path):
    """What is counted is exact but for a frame a video; bytes and seconds are of the right size.

    Three times is much more than an undisturbed machine needs. On two cores with other work the
    speed of one process changes by as much between two minutes.
    """
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        write_video(folder / f"{number}.mp4", frames=300, width=160 + 96 * number)
    write_text(folder / "text.mp4")
    config = PlanCheckConfig(
        input=str(folder), output=str(tmp_path), settings=(f"weights={weights}",)
    )
    found = {one.name: one for one in compare(config, tmp_path / "out")}
    for name in ("videos", "dead letters", "segments"):
        assert found[name].ratio == 1
    assert found["frames"].ratio == pytest.approx(1, abs=0.01)
    assert 0.5 < found["kB of tables"].ratio < 2
    assert 1 / 3 < found["seconds"].ratio < 3


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "some").write_text("mine")
    with pytest.raises(SystemExit) as leaving:
        main([f"input={tmp_path}", f"output={tmp_path}"])
    assert leaving.value.code == 1
    assert "is not empty" in capsys.readouterr().err
