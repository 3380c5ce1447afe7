"""Several images at once give the scores of one at a time, and how nearly is on record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage import data

from iqa_checks import features
from iqa_checks.errors import StimulusError, UsageError
from iqa_checks.experts import EXPERTS, computing, how_computed, score_stimuli, scoring
from iqa_checks.experts.computing import Item, Opener, Where, compute_once, measure
from iqa_checks.experts.opening import open_expert
from iqa_checks.features import EMBEDDERS, Embedder, embed_images
from iqa_checks.stimuli import Rated, StimulusSet, verify

ONE_OF_EACH_KIND = ("fsim", "piq-gmsd", "vif_p", "pyiqa-ms_ssim", "nlpd", "piqe")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> StimulusSet:
    """Three noisy crops, the second of another size, with their references."""
    folder = tmp_path_factory.mktemp("mixed")
    rng, rows = np.random.default_rng(0), []
    for k in range(3):
        size = (176, 192) if k % 2 else (192, 176)
        photo = data.astronaut()[40 * k : 40 * k + size[0], 30 * k : 30 * k + size[1]]
        noisy = np.clip(photo + rng.normal(0, 4 + 6 * k, photo.shape), 0, 255).astype(np.uint8)
        paths = folder / f"{k}.png", folder / f"r{k}.png"
        for path, pixels in zip(paths, (noisy, photo), strict=True):
            PIL.Image.fromarray(pixels).save(path)
        rows.append(Rated(paths[0], float(k), reference=paths[1]))
    return StimulusSet("mixed", verify(rows, name="mixed"), (0.0, 5.0))


@pytest.fixture(autouse=True)
def closed():
    yield
    computing._opened.cache_clear()


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_batches_of_equal_sizes_score_as_single_images(mixed, tmp_path, name):
    pytest.importorskip(EXPERTS[name].package)
    alone = score_stimuli(mixed, name, cache_dir=tmp_path)
    together = score_stimuli(mixed, name, cache_dir=tmp_path, batch=4)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert len(list((tmp_path / "computed").glob(f"{name}-*.sqlite"))) == (
        2 if EXPERTS[name].batched else 1
    )


def test_how_far_batches_lie_from_single_images_is_kept_beside_the_scores(mixed, tmp_path):
    pytest.importorskip("piq")
    score_stimuli(mixed, "fsim", cache_dir=tmp_path, batch=4)
    (said,) = how_computed("fsim", cache_dir=tmp_path, batch=4)
    assert said.startswith("fsim: batches of 4 on cpu lie within ")
    assert "first 3 images" in said
    score_stimuli(mixed, "fsim", cache_dir=tmp_path, batch=4)  # nothing left to compute
    assert how_computed("fsim", cache_dir=tmp_path, batch=4) == (said,)
    assert how_computed("fsim", cache_dir=tmp_path) == ()  # one at a time on the CPU


def test_batches_that_change_scores_are_refused(mixed, tmp_path, monkeypatch):
    def opened(expert, weights_dir, device):
        return lambda pairs: [(1.0 + 0.02 * (len(pairs) - 1),) for _ in pairs]

    monkeypatch.setattr(scoring, "_open", opened)
    with pytest.raises(UsageError, match=r"fsim: batches of 4 on cpu lie within 0\.04 .* 1%"):
        score_stimuli(mixed, "fsim", cache_dir=tmp_path, batch=4)
    assert score_stimuli(mixed, "fsim", cache_dir=tmp_path).tolist() == [1.0] * 3


def test_an_expert_that_looks_at_its_neighbours_always_gets_one_image(mixed, tmp_path):
    assert scoring._batch(EXPERTS["liqe"], "cuda", 16) == 1
    assert scoring._batch(EXPERTS["psnr"], "cuda", None) == 1  # numpy, on the CPU
    assert scoring._batch(EXPERTS["fsim"], "cuda", None) == scoring.BATCH
    assert scoring._batch(EXPERTS["fsim"], "cpu", None) == 1
    with pytest.raises(UsageError, match="batches of 0 images"):
        score_stimuli(mixed, "fsim", cache_dir=tmp_path, batch=0)


def fits(most: int):
    def several(pairs):
        if len(pairs) > most:
            raise MemoryError("out of memory")
        return [(1 / int(path.name),) for path, _ in pairs]

    return several


def test_a_batch_that_does_not_fit_is_measured_image_by_image():
    items = [Item(str(k), Path(str(k))) for k in range(1, 6)]
    values = measure(Opener(fits, (1,), batch=4), items)
    assert values == {str(k): (1 / k,) for k in range(1, 6)}


def test_the_image_that_spoils_a_batch_is_named_and_the_others_are_not(tmp_path):
    items = [Item(str(k), Path(str(k))) for k in range(-2, 3)]
    with pytest.raises(StimulusError, match=r"^0 cannot be measured \(ZeroDivisionError"):
        compute_once(items, Opener(fits, (9,), batch=5), {}, Where(tmp_path, jobs=1), name="t")


def test_rows_of_an_embedder_in_batches(mixed, tmp_path, monkeypatch):
    images = [s.image for s in mixed.stimuli]
    alone = embed_images(images, "offline", cache_dir=tmp_path)
    together = embed_images(images, "offline", cache_dir=tmp_path, batch=4)
    np.testing.assert_allclose(together, alone, atol=1e-7)

    def off(_weights, _device):
        return lambda paths: np.array([[1.0, 0.1 * len(paths)] for _ in paths])

    monkeypatch.setitem(EMBEDDERS, "off", Embedder("off", "numpy", "", off))
    with pytest.raises(UsageError, match=r"off: rows of batches of 4 on cpu lie within 0\.19"):
        embed_images(images, "off", cache_dir=tmp_path, batch=4)


@pytest.mark.parametrize("name", ["fsim", "vif_p", "pyiqa-ms_ssim", "piqe", "stlpips"])
def test_a_gpu_scores_as_the_cpu_does(mixed, tmp_path, name):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip(EXPERTS[name].package)
    on_cpu = score_stimuli(mixed, name, cache_dir=tmp_path)
    on_gpu = score_stimuli(mixed, name, cache_dir=tmp_path, device="cuda")
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-5)
    (said,) = how_computed(name, cache_dir=tmp_path, device="cuda")
    assert f"{name}: batches of {features.BATCH} on cuda lie within" in said


def test_other_models_of_the_process_load_after_pyiqa():
    """MS-SSIM imports pyiqa's Q-Align, which replaces transformers' Llama."""
    pytest.importorskip("pyiqa")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    open_expert("pyiqa-ms_ssim", None, "cpu")
    assert llama.LlamaModel.forward.__module__ == llama.__name__
