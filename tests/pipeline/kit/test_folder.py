"""The folder of a kit: parts of a size that can be carried, and what is said of missing ones."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kit.folder import KitError, Stage, calls, join_kit, lay_out, read_kit, write_kit

STAGES = (Stage("detection", 0.7), Stage("tracking", 0.3))
CONFIGS = {stage.name: {"learn": [], "name": stage.name} for stage in STAGES}
PART = 2_000_000


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=8),
    st.integers(1, 90),
    st.data(),
)
def test_pieces_are_whole_files_and_fill_their_parts(sizes, room, data):
    taken = data.draw(st.integers(0, room - 1))
    files = {f"f{i}": size for i, size in enumerate(sizes)}
    pieces = lay_out(files, room, taken)
    for name, size in files.items():
        own = [p for p in pieces if p.file == name]
        assert [p.number for p in own] == list(range(len(own)))
        assert [p.start for p in own] == [0, *(p.stop for p in own[:-1])] and own[-1].stop == size
    carried = [taken] + [0] * pieces[-1].part
    for piece in pieces:
        carried[piece.part] += piece.stop - piece.start
    assert all(bytes_ == room for bytes_ in carried[:-1]) and carried[-1] <= room


def make(folder, limit=PART):
    files = {"start.safetensors": b"start", "shards/shard-000.zip": bytes(range(256)) * 20_000}
    return files, write_kit(folder, STAGES, CONFIGS, files, "cpu", limit)


def test_no_part_is_over_its_limit_and_joined_files_are_the_same(tmp_path):
    files, kit = make(tmp_path / "kit")
    assert kit.parts > 2 and read_kit(tmp_path / "kit") == kit
    for part in range(kit.parts):
        found = (tmp_path / "kit" / f"part-{part}").rglob("*")
        assert 0 < sum(p.stat().st_size for p in found if p.is_file()) <= PART
    join_kit(tmp_path / "kit", kit, tmp_path / "joined")
    for name, data in files.items():
        assert (tmp_path / "joined" / name).read_bytes() == data
    text = calls("runs/kit", kit)
    assert text.count("carry [") == kit.parts and "run.py --minutes 8" in text


def test_a_kit_takes_the_place_of_another_and_of_nothing_else(tmp_path):
    make(tmp_path / "kit")
    _, kit = make(tmp_path / "kit", 100_000_000)
    assert kit.parts == 1 and not (tmp_path / "kit" / "part-1").exists()
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("rain")
    with pytest.raises(KitError, match="diary: holds other files than a kit"):
        make(tmp_path / "diary")
    with pytest.raises(KitError, match=r"the code alone takes .* larger part_mb"):
        make(tmp_path / "small", 100_000)


def test_parts_that_were_not_carried_are_named(tmp_path):
    _, kit = make(tmp_path / "kit")
    shutil.rmtree(tmp_path / "kit" / "part-1")
    piece = next((tmp_path / "kit" / "part-2" / "pieces").iterdir())
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(KitError, match=r"part-1, part-2 of .* parts are missing .*copy them"):
        join_kit(tmp_path / "kit", kit, tmp_path / "joined")
    shutil.rmtree(tmp_path / "kit" / "part-0")
    with pytest.raises(KitError, match="copy part-0 again"):
        read_kit(tmp_path / "kit")
