"""Image features: the offline embedder, and CLIP's loading code with random weights."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
from skimage import data

from iqa_checks import features
from iqa_checks.errors import MissingExtra, UsageError
from iqa_checks.experts import computing
from iqa_checks.experts.weights import WeightFile
from iqa_checks.features import EMBEDDERS, Embedder, embed_images, offline_features
from iqa_checks.stimuli import read_image

CONTENTS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Each of four photographs as it is and as a JPEG of quality 20."""
    folder = tmp_path_factory.mktemp("pictures")
    images = []
    for name in CONTENTS:
        photo = PIL.Image.fromarray(getattr(data, name)())
        photo.save(folder / f"{name}.png")
        photo.save(folder / f"{name}.jpg", quality=20)
        images += [read_image(folder / f"{name}.{kind}", where=name) for kind in ("png", "jpg")]
    return images


def test_offline_rows_are_unit_vectors_in_the_order_asked(pictures, tmp_path):
    rows = embed_images(pictures, "offline", cache_dir=tmp_path)
    assert rows.shape == (8, 240)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    backwards = embed_images(pictures[::-1], "offline", cache_dir=tmp_path)
    np.testing.assert_array_equal(backwards[::-1], rows)


def test_offline_features_tell_contents_apart_more_than_distortions(pictures, tmp_path):
    rows = embed_images(pictures, "offline", cache_dir=tmp_path)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    same = np.arange(8)[:, None] // 2 == np.arange(8)[None] // 2
    assert squared[same].max() < 0.2 * squared[~same].min()


def test_offline_features_are_pinned():
    """Deterministic arithmetic: a change of these numbers needs a new revision."""
    ramp = np.indices((64, 48)).sum(axis=0)[:, :, None] * np.array([2, 1, 0])
    vector = offline_features(ramp.astype(np.uint8))
    assert vector @ vector == pytest.approx(1)
    np.testing.assert_allclose(vector[[0, 50, 200]], PINNED, atol=1e-6)


PINNED = [-0.12565577, 0.13642237, 0.0]


def test_a_uniform_image_has_features_too():
    vector = offline_features(np.full((20, 20, 3), 90, np.uint8))
    assert np.isfinite(vector).all()
    assert vector @ vector == pytest.approx(1)


def test_features_are_computed_once(pictures, tmp_path, monkeypatch):
    first = embed_images(pictures, "offline", cache_dir=tmp_path)
    monkeypatch.setattr(computing, "measure", None)
    np.testing.assert_array_equal(embed_images(pictures, "offline", cache_dir=tmp_path), first)


def test_absent_clip_weights_are_an_error_not_another_embedder(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"vit_base_patch32_clip_224.openai/.*605 MB"):
        embed_images(pictures, "clip-vit-b-32", cache_dir=tmp_path)


def test_an_unknown_embedder_lists_the_known(pictures, tmp_path):
    with pytest.raises(UsageError, match="Known: clip-vit-b-32, offline"):
        embed_images(pictures, "dino", cache_dir=tmp_path)


def test_an_absent_package_says_which_extra(pictures, tmp_path, monkeypatch):
    missing = Embedder("m", "no-such-distribution", "", lambda w, d: None)
    monkeypatch.setitem(EMBEDDERS, "m", missing)
    with pytest.raises(MissingExtra, match=r"iqa_checks\[experts\]"):
        embed_images(pictures, "m", cache_dir=tmp_path)


def test_clip_features_come_from_the_file_given(pictures, tmp_path, monkeypatch):
    """A small CLIP with random weights through the same code, official preprocessing included."""
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2,
                     "layers": 1},
    }  # fmt: skip
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip", force_quick_gelu=True).eval()
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    tiny = Embedder(
        "tiny",
        "open_clip_torch",
        "",
        lambda weights, device: features._open_clip(weights, device, model="tiny-clip"),
        (WeightFile("tiny.pt", None, "own export"),),
    )
    monkeypatch.setitem(EMBEDDERS, "tiny", tiny)
    rows = embed_images(pictures, "tiny", cache_dir=tmp_path, weights_dir=tmp_path, jobs=1)
    computing._opened.cache_clear()
    assert rows.shape == (8, 32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    with torch.no_grad(), PIL.Image.open(pictures[0].path) as picture:
        pixels = _official(picture.convert("RGB"))
        expected = model.encode_image(torch.from_numpy(pixels)[None])[0].numpy()
    np.testing.assert_allclose(rows[0], expected / np.linalg.norm(expected), atol=1e-5)


def _official(picture: PIL.Image.Image) -> np.ndarray:
    """CLIP's preprocessing written out: shorter side 224 bicubic, centre crop, mean and SD."""
    scale = 224 / min(picture.size)
    size = tuple(max(224, int(side * scale)) for side in picture.size)
    scaled = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    left, top = (round((side - 224) / 2) for side in size)
    pixels = np.asarray(scaled.crop((left, top, left + 224, top + 224)), np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    sd = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    return ((pixels - mean) / sd).transpose(2, 0, 1)
