"""Shards: what is packed comes back, with its source and split; what cannot be read is named."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jobs.pack import main
from pipeline.datasets.layouts import PICTURES
from pipeline.datasets.mot import read_sequence
from pipeline.datasets.packing import KnownSources, PackError, pack_coco, pack_sequence
from pipeline.datasets.shards import (
    LabelledFrame,
    LabelledSequence,
    PictureError,
    ShardError,
    Shards,
    ShardWriter,
    encode_picture,
    require_train,
    require_val,
)
from pipeline.datasets.synthetic import make_synthetic
from tests.videos import write_video

NOTHING = KnownSources()


def stills(folder, images, shade=100):
    """A COCO file with one person on each picture."""
    (folder / "images").mkdir(parents=True)
    block = {"images": [], "annotations": []}
    for i, image in enumerate(images):
        Image.new("RGB", (80, 60), (shade + i,) * 3).save(folder / "images" / image["file_name"])
        block["images"].append({"id": i, **image})
        box = {"image_id": i, "category_id": 1, "bbox": [10, 5, 20, 40]}
        block["annotations"].append(box)
    path = folder / "annotations.json"
    path.write_text(json.dumps(block))
    return path


def packed(files, folder, known=NOTHING):
    writer, problems = ShardWriter(folder, ["person"]), []
    for path in files:
        problems += pack_coco(path, writer, 640, known, lambda n: None)
    writer.close()
    return Shards(folder), problems


def one_still(split="train"):
    frame = LabelledFrame("a.webp", [[1, 1, 9, 20]], [0], [0], [False])
    return LabelledSequence("a", "some", split, 0.0, True, "seen", False, [frame])


def write_one(folder, *splits):
    data, _ = encode_picture(np.zeros((40, 40, 3), np.uint8), 640)
    writer = ShardWriter(folder, ["person"])
    for split in splits:
        writer.add(one_still(split), {"a.webp": data})
    writer.close()
    return Shards(folder)


def test_stills_keep_source_split_and_what_is_known_of_the_source(tmp_path):
    path = stills(
        tmp_path / "in",
        [
            {"file_name": "a.png", "source": "fog-east", "split": "val"},
            {"file_name": "b.png", "source": "square"},
        ],
    )
    shards, problems = packed(
        [path], tmp_path / "out", KnownSources(("fog*",), ("square",), ("sq*",))
    )
    assert problems == []
    foggy, square = shards.sequences
    assert (foggy.source, foggy.split, foggy.clean, foggy.squeezed) == (
        "fog-east", "val", False, False,
    )  # fmt: skip
    assert (square.source, square.split, square.clean, square.squeezed) == (
        "square", "train", True, True,
    )  # fmt: skip
    assert (foggy.extent, square.extent) == ("seen", "loose")
    assert shards.sequences[0].frames[0].boxes == [[10, 5, 20, 40]]
    assert require_train(shards) == [1] and require_val(shards) == [0]


def test_pictures_of_one_name_from_two_files_stay_apart(tmp_path):
    files = [
        stills(tmp_path / name, [{"file_name": "000001.png"}], shade)
        for name, shade in (("east", 40), ("west", 200))
    ]
    shards, _ = packed(files, tmp_path / "out")
    assert [s.source for s in shards.sequences] == ["east", "west"]
    assert abs(int(shards.picture(0, 0).mean()) - 40) <= 2
    assert abs(int(shards.picture(1, 0).mean()) - 200) <= 2


def test_a_split_that_is_none_is_refused(tmp_path):
    path = stills(tmp_path / "in", [{"file_name": "a.png", "split": "test"}])
    with pytest.raises(PackError, match=r"a\.png: split is 'test'; expected one of train, val"):
        packed([path], tmp_path / "out")


def test_pictures_that_cannot_be_read_are_named_skipped_and_counted(tmp_path, capsys):
    path = stills(tmp_path / "in", [{"file_name": f"{name}.png"} for name in "abc"])
    (tmp_path / "in" / "images" / "a.png").write_bytes(b"no picture")
    (tmp_path / "in" / "images" / "b.png").unlink()
    out = tmp_path / "out"
    settings = [f"stills=[{path}]", "sequences=[]", f"output={out}"]
    assert main(settings) == 0
    said = " ".join(capsys.readouterr().out.replace("\n", "").split())
    assert "a.png: not a readable picture" in said and "b.png: not a readable picture" in said
    assert "2 files left out" in said
    assert [s.name for s in Shards(out).sequences] == ["c"]
    (tmp_path / "in" / "images" / "c.png").unlink()
    with pytest.raises(SystemExit) as leaving:
        main(settings)
    said = capsys.readouterr()
    assert leaving.value.code == 1 and "nothing to pack" in said.err
    assert "3 files left out" in said.out
    assert [s.name for s in Shards(out).sequences] == ["c"], "the earlier shards are intact"


def test_a_damaged_webp_is_not_taken_as_it_is(tmp_path):
    path = stills(tmp_path / "in", [{"file_name": "a.webp"}, {"file_name": "b.webp"}])
    file = tmp_path / "in" / "images" / "a.webp"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:400])
    shards, problems = packed([path], tmp_path / "out")
    assert len(problems) == 1 and "a.webp" in problems[0]
    assert [s.name for s in shards.sequences] == ["b"]


def test_sequences_are_whole_people_to_train_on(tmp_path):
    root = make_synthetic(tmp_path / "drawn", 1)
    out = tmp_path / "out"
    assert main([f"sequences=[{root}]", "stills=[]", 'poor_sources=["*"]', f"output={out}"]) == 0
    (sequence,) = Shards(out).sequences
    assert (sequence.source, sequence.split, sequence.extent) == (sequence.name, "train", "whole")
    assert not sequence.clean and sequence.fps > 0 and len(sequence.frames) > 1


def sequence_folder(folder, length):
    """A sequence with one person in its first frame, and neither video nor pictures."""
    (folder / "gt").mkdir(parents=True)
    (folder / "gt" / "gt.txt").write_text("1,1,10,5,20,40,1,1,1\n")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nframeRate=25\nseqLength={length}\n"
        "imWidth=160\nimHeight=96\n"
    )
    return folder


def picture_sequence(folder, length, suffixes):
    """As `sequence_folder`, with a grey picture for each suffix."""
    pictures = sequence_folder(folder, length) / "img1"
    pictures.mkdir()
    for i, suffix in enumerate(suffixes):
        Image.new("RGB", (160, 96), (40 * i,) * 3).save(pictures / f"{i:06d}{suffix}")
    return folder


def test_sequences_of_every_kind_of_picture_are_packed(tmp_path):
    folder = picture_sequence(tmp_path / "walk", len(PICTURES), PICTURES)
    writer = ShardWriter(tmp_path / "out", ["person"])
    assert pack_sequence(read_sequence(folder), writer, 640, NOTHING, lambda n: None) == []
    writer.close()
    shards = Shards(tmp_path / "out")
    shades = [shards.picture(0, i).mean() for i in range(len(PICTURES))]
    assert len(shards.sequences[0].frames) == len(PICTURES)
    assert shades == pytest.approx([40 * i for i in range(len(PICTURES))], abs=2)


def test_a_sequence_with_too_few_pictures_is_refused(tmp_path):
    folder = picture_sequence(tmp_path / "walk", 4, [".jpg", ".png"])
    writer = ShardWriter(tmp_path / "out", ["person"])
    with pytest.raises(PackError, match=r"walk: .*img1 holds 2 pictures .* says 4 \(seqLength\)"):
        pack_sequence(read_sequence(folder), writer, 640, NOTHING, lambda n: None)


def test_videos_that_cannot_be_decoded_are_named_skipped_and_counted(tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    (sequence_folder(root / "broken", 3) / "video.mp4").write_bytes(b"no video")
    # It ends in the second of the parts that are read at a time.
    write_video(sequence_folder(root / "short", 80) / "video.mp4", frames=70)
    write_video(sequence_folder(root / "sound", 3) / "video.mp4", frames=3)
    settings = [f"sequences=[{root}]", "stills=[]", f"output={out}"]
    assert main(settings) == 0
    said = " ".join(capsys.readouterr().out.replace("\n", "").split())
    assert "broken/video.mp4" in said and "short/video.mp4" in said
    assert "2 files left out" in said
    (kept,) = Shards(out).sequences
    assert (kept.name, len(kept.frames)) == ("sound", 3)
    (root / "sound" / "video.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as leaving:
        main(settings)
    said = capsys.readouterr()
    assert leaving.value.code == 1 and "nothing to pack" in said.err
    assert "3 files left out" in said.out


def test_shards_of_a_larger_packing_are_removed(tmp_path):
    data, _ = encode_picture(np.zeros((40, 40, 3), np.uint8), 640)
    writer = ShardWriter(tmp_path, ["person"], limit=len(data))
    for _ in range(3):
        writer.add(one_still(), {"a.webp": data})
    writer.close()
    assert len(Shards(tmp_path).sequences) == len(writer.written) == 3
    assert len(write_one(tmp_path, "train").sequences) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["shard-000.zip"]


def test_shards_of_the_first_format_are_to_be_packed_again(tmp_path):
    with zipfile.ZipFile(tmp_path / "shard-000.zip", "w") as archive:
        archive.writestr("labels.json", json.dumps({"format": 1, "classes": [], "sequences": []}))
    with pytest.raises(ShardError, match=r"shard-000\.zip: shard format 1, need 2; pack again"):
        Shards(tmp_path)


def test_boxes_of_an_unknown_kind_are_refused(tmp_path):
    writer = ShardWriter(tmp_path, ["person"])
    data, _ = encode_picture(np.zeros((20, 20, 3), np.uint8), 640)
    writer.add(replace(one_still(), extent="roughly"), {"a.webp": data})
    writer.close()
    message = r"shard-000\.zip: a: extent is 'roughly'; expected one of seen, whole, loose; pack"
    with pytest.raises(ShardError, match=message):
        Shards(tmp_path)


def test_a_missing_half_is_named(tmp_path):
    with pytest.raises(ShardError, match=r"one: no frame of split train in its 1 seq.*images\[\]"):
        require_train(write_one(tmp_path / "one", "val"))
    with pytest.raises(ShardError, match="other: no still of split val"):
        require_val(write_one(tmp_path / "other", "train"))


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    writer = ShardWriter(tmp_path, ["person"])
    writer.add(one_still(), {"a.webp": b"no picture"})
    writer.close()
    with pytest.raises(PictureError, match=r"shard-000\.zip: 000000/a\.webp: not a readable"):
        Shards(tmp_path).picture(0, 0)
