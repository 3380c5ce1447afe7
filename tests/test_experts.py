"""Expert metrics: values, orientation, weights, the store of scores, fusion."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage import data, metrics

from iqa_checks.errors import MissingExtra, StimuliAbsent, StimulusError, UsageError
from iqa_checks.experts import (
    EXPERTS,
    OFFLINE_EXPERTS,
    PAPER_EXPERTS,
    classic,
    computing,
    default_experts,
    expert_table,
    find_expert,
    fuse,
    score_stimuli,
    weights,
)
from iqa_checks.experts.computing import Item, Opener, Where, compute_once
from iqa_checks.experts.opening import open_expert
from iqa_checks.experts.weights import WeightFile
from iqa_checks.stimuli import Rated, StimulusSet, verify

OWN_FR = ("psnr", "ssim", "ms_ssim", "gmsd", "ciede2000")
RATED_DATA = os.environ.get("IQA_CHECKS_RATED_DATA")
needs_rated_data = pytest.mark.skipif(not RATED_DATA, reason="IQA_CHECKS_RATED_DATA is not set")
PUBLISHED = [
    ("psnr", (21.11, 20.99, 27.01, 21.62), 0.006),
    ("ssim", (0.6993, 0.9978, 0.9989, 0.6519), 5e-4),
    ("gmsd", (0.2203476, 0.0005221, 0.0004483, 0.2049965), 2e-5),
    ("ms_ssim", (0.6733, 0.9996, 0.9998, 0.8462), 6e-3),
    ("fsim", (0.689, 0.9702, 0.9927, 0.822), 5e-4),
    ("vif", (0.0172, 0.9891, 0.9924, 0.1745), 1e-3),
    ("nlpd", (0.56161, 0.019535, 0.015916, 0.432605), 8e-3),
]


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()[100:356, 100:356]


@pytest.fixture(scope="module")
def noisy(photo):
    noise = np.random.default_rng(0).normal(0, 12, photo.shape)
    return np.clip(photo + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory, photo) -> StimulusSet:
    """One reference of 192 x 192 and five JPEG qualities, worst first."""
    photo = photo[:192, :192]
    folder = tmp_path_factory.mktemp("ladder")
    PIL.Image.fromarray(photo).save(folder / "reference.png")
    rows = []
    for k, quality in enumerate((5, 10, 20, 40, 80)):
        PIL.Image.fromarray(photo).save(folder / f"{quality}.jpg", quality=quality)
        rows.append(
            Rated(folder / f"{quality}.jpg", 1.0 + k, 0.5, reference=folder / "reference.png")
        )
    return StimulusSet("ladder", verify(rows, name="ladder"), (1.0, 5.0))


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> StimulusSet:
    """Twenty small images and their reference: enough to be given to several processes."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 256, (16, 24, 3), np.uint8)
    PIL.Image.fromarray(reference).save(folder / "reference.png")
    rows = []
    for k in range(20):
        noisy = np.clip(reference + rng.normal(0, 1 + k, reference.shape), 0, 255)
        PIL.Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{k}.png")
        rows.append(Rated(folder / f"{k}.png", float(k), reference=folder / "reference.png"))
    return StimulusSet("many", verify(rows, name="many"), (0.0, 20.0))


class TestValues:
    def test_psnr_is_scikit_images(self, photo, noisy):
        expected = metrics.peak_signal_noise_ratio(photo, noisy, data_range=255)
        assert classic.psnr(noisy, photo) == pytest.approx(expected, rel=1e-12)

    def test_psnr_of_equal_images_is_a_number(self, photo):
        assert classic.psnr(photo, photo) == 100.0

    @pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
    def test_equal_images_score_one(self, photo, name):
        assert classic.WITH_REFERENCE[name](photo, photo) == pytest.approx(1.0, abs=1e-9)

    @pytest.mark.parametrize("name", ["gmsd", "ciede2000"])
    def test_equal_images_differ_by_nothing(self, photo, name):
        assert classic.WITH_REFERENCE[name](photo, photo) == pytest.approx(0.0, abs=1e-9)

    def test_ciede2000_of_two_uniform_images(self):
        """Sharma et al. 2005 give pairs in Lab; here two sRGB greys, by their lightness alone."""
        first, second = (np.full((4, 4, 3), v, np.uint8) for v in (119, 130))
        assert 3 < classic.ciede2000(first, second) < 5
        assert classic.ciede2000(first, second) == classic.ciede2000(second, first)

    def test_noise_sigma_is_the_noise_that_was_added(self):
        noise = np.random.default_rng(1).normal(0, 8, (256, 256, 1))
        flat = np.clip(128 + np.repeat(noise, 3, axis=2), 0, 255).astype(np.uint8)
        assert classic.noise_sigma(flat) == pytest.approx(8, rel=0.03)

    def test_blur_effect_rises_with_blur(self, photo):
        small = PIL.Image.fromarray(photo).resize((64, 64))
        blurred = np.asarray(small.resize((256, 256)))
        assert classic.blur_effect(blurred) > classic.blur_effect(photo)

    @pytest.mark.parametrize(
        ("ours", "theirs", "tolerance"),
        [
            ("psnr", "pyiqa-psnr", 1e-3),
            ("ssim", "pyiqa-ssim", 1e-4),
            ("ms_ssim", "pyiqa-ms_ssim", 2e-3),
            ("gmsd", "pyiqa-gmsd", 1e-3),
            ("gmsd", "piq-gmsd", 5e-3),  # piq does not round luma
        ],
    )
    def test_permissive_values_are_those_of_other_packages(
        self, tmp_path, photo, noisy, ours, theirs, tolerance
    ):
        pytest.importorskip(find_expert(theirs).package)
        for name, pixels in (("photo", photo), ("noisy", noisy)):
            PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        pair = tmp_path / "noisy.png", tmp_path / "photo.png"
        (first,), (second,) = (open_expert(name, None, "cpu")([pair]) for name in (ours, theirs))
        assert first == pytest.approx(second, rel=tolerance)

    @needs_rated_data
    @pytest.mark.parametrize(("name", "published", "tolerance"), PUBLISHED)
    def test_published_values_of_tid2013_pairs(self, name, published, tolerance):
        """Values of the authors' own code, listed in IQA-PyTorch's ResultsCalibra."""
        if find_expert(name).route != "own":
            pytest.importorskip(find_expert(name).package)
        folder = Path(RATED_DATA or "") / "demo_stimuli/images"
        score = open_expert(name, None, "cpu")
        for content, expected in zip(("I03", "I04", "I06", "I19"), published, strict=True):
            pair = tuple(folder / f"tid2013_{kind}_{content}.png" for kind in ("dist", "ref"))
            assert score([pair]) == [pytest.approx(expected, abs=tolerance)], content

    def test_too_small_an_image_is_refused_in_words(self):
        tiny = np.zeros((40, 60, 3), np.uint8)
        with pytest.raises(UsageError, match=r"at least 176 pixels .* got 60 x 40"):
            classic.ms_ssim(tiny, tiny)


class TestRegistry:
    @pytest.mark.parametrize("name", OWN_FR)
    def test_scores_rise_with_quality_whatever_the_polarity(self, ladder, tmp_path, name):
        scores = score_stimuli(ladder, name, cache_dir=tmp_path)
        assert (np.diff(scores) > 0).all()

    def test_all_of_the_papers_experts_are_there(self):
        rows = ("psnr", "ssim", "fsim", "lpips", "ahiq", "dists", "niqe", "musiq", "maniqa", "liqe")
        assert set(rows) <= set(EXPERTS)
        assert {name for pair in PAPER_EXPERTS.values() for name in pair} <= set(EXPERTS)
        assert {name for pair in OFFLINE_EXPERTS.values() for name in pair} <= set(EXPERTS)

    def test_a_permissive_and_a_non_commercial_ssim_are_told_apart_by_name(self):
        assert "Noncommercial" in EXPERTS["pyiqa-ssim"].licence
        assert "Noncommercial" not in EXPERTS["ssim"].licence

    def test_the_list_has_a_licence_and_the_weight_files_of_each(self):
        head, *lines = expert_table()
        assert head[3] == "licence"
        assert len(lines) == len(EXPERTS)
        assert all(line[3] for line in lines)
        dists = next(line for line in lines if line[0] == "dists")
        assert "vgg16-397923af.pth (528 MB)" in dists[4]
        assert "FR-KADID" in dists[5]

    def test_an_unknown_name_lists_the_known(self):
        with pytest.raises(UsageError, match="Did you mean 'lpips'"):
            find_expert("lpisp")

    def test_polarity_and_reference_agree_with_pyiqa(self):
        configs = pytest.importorskip("pyiqa.default_model_configs").DEFAULT_CONFIGS
        for expert in EXPERTS.values():
            if expert.route == "pyiqa":
                theirs = configs[expert.metric]
                assert theirs.get("lower_better", False) == expert.lower_better, expert.name
                assert (theirs["metric_mode"] == "FR") == (expert.reference == "full"), expert.name

    def test_defaults(self):
        assert default_experts("SPAQ", "nr") == ("liqe_mix", "maniqa")
        assert default_experts("builtin", "fr") == OFFLINE_EXPERTS["fr"]
        with pytest.raises(UsageError, match="unknown scenario"):
            default_experts("builtin", "rr")


class TestWeights:
    def test_absent_weights_are_one_error_that_says_all(self, ladder, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
        with pytest.raises(UsageError) as error:
            score_stimuli(ladder, "lpips", cache_dir=tmp_path, weights_dir=tmp_path / "w")
        text = str(error.value)
        assert f"{tmp_path}/w/alexnet-owt-7be5be79.pth" in text
        assert "233 MB" in text
        assert "download.pytorch.org" in text
        assert "LPIPS_v0.1_alex-df73285e.pth" in text

    def test_without_a_folder_the_error_says_how_to_give_one(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(UsageError, match="--iqa-weights FOLDER"):
            open_expert("niqe", None, "cpu")

    def test_files_are_found_where_the_packages_keep_them(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        hub = tmp_path / "torch" / "hub"
        snapshot = tmp_path / "hf/hub/models--a--b/snapshots/c0ffee/model.safetensors"
        for path in (hub / "checkpoints/x.pth", hub / "pyiqa/y.pth", snapshot):
            path.parent.mkdir(parents=True)
            path.write_bytes(b"w")
        (tmp_path / "hf/hub/models--a--b/refs").mkdir()
        (tmp_path / "hf/hub/models--a--b/refs/main").write_text("c0ffee")
        assert WeightFile("x.pth", 1, "torchvision").find(None) == hub / "checkpoints/x.pth"
        assert WeightFile("y.pth", 1, "pyiqa").find(None) == hub / "pyiqa/y.pth"
        file = WeightFile("a/b/model.safetensors", 1, "huggingface")
        assert file.find(None) == snapshot

    def test_other_weights_are_another_identity(self, tmp_path):
        path = tmp_path / "w.pth"
        path.write_bytes(b"one")
        before = weights.identity([path])
        path.write_bytes(b"two!")
        assert weights.identity([path]) != before

    def test_nothing_can_be_downloaded_while_a_model_is_built(self):
        pytest.importorskip("torch")
        import torch.hub

        with weights.staged({}), pytest.raises(UsageError, match=r"asked to download http://x/y"):
            torch.hub.load_state_dict_from_url("http://x/y.pth")

    def test_an_absent_package_says_which_extra(self, monkeypatch, tmp_path, ladder):
        monkeypatch.setitem(sys.modules, "piq", None)
        with pytest.raises(MissingExtra, match=r"iqa_checks\[experts\]"):
            score_stimuli(ladder, "fsim", cache_dir=tmp_path)

    @pytest.mark.parametrize("name", ["lpips", "dists"])
    def test_weights_are_loaded_from_the_folder(self, name, ladder, tmp_path, monkeypatch):
        """Random weights in the right files: the loading code is run, values are not claimed."""
        pytest.importorskip("pyiqa")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
        folder = _random_weights(name, tmp_path / "weights", seed=0)
        scores = score_stimuli(ladder, name, cache_dir=tmp_path, weights_dir=folder, jobs=1)
        assert np.isfinite(scores).all()
        assert (scores < 0).all()  # a distance, negated
        computing._opened.cache_clear()
        if name == "lpips":  # other weights are other scores, not those kept
            folder = _random_weights(name, tmp_path / "weights", seed=1)
            others = score_stimuli(ladder, name, cache_dir=tmp_path, weights_dir=folder, jobs=1)
            computing._opened.cache_clear()
            assert (others != scores).all()

    def test_a_torchscript_export_serves_as_cdnet(self, ladder, tmp_path):
        torch = pytest.importorskip("torch")

        class Difference(torch.nn.Module):
            def forward(self, x, y):
                return (x - y).abs().mean()

        torch.jit.script(Difference()).save(str(tmp_path / "cdnet.torchscript.pt"))
        scores = score_stimuli(ladder, "cdnet", cache_dir=tmp_path, weights_dir=tmp_path)
        assert scores[0] < scores[-1] < 0


def _random_weights(name: str, folder: Path, seed: int) -> Path:
    """The files of an expert with random numbers in them; unused classifiers take no space."""
    import torch

    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    if name == "lpips":
        torch.save(_random_backbone("alexnet"), folder / "alexnet-owt-7be5be79.pth")
        heads = {
            f"lin{k}.model.1.weight": torch.rand(1, channels, 1, 1)
            for k, channels in enumerate((64, 192, 384, 256, 256))
        }
        torch.save(heads, folder / "LPIPS_v0.1_alex-df73285e.pth")
    else:
        torch.save(_random_backbone("vgg16"), folder / "vgg16-397923af.pth")
        channels = 3 + 64 + 128 + 256 + 512 + 512
        heads = {key: torch.rand(1, channels, 1, 1) for key in ("alpha", "beta")}
        torch.save(heads, folder / "DISTS_weights-f5e65c96.pth")
    return folder


def _random_backbone(name: str) -> dict[str, object]:
    import torch
    import torchvision

    with torch.device("meta"):
        shapes = {k: v.shape for k, v in getattr(torchvision.models, name)().state_dict().items()}
    return {
        key: torch.randn(shape) * shape[1:].numel() ** -0.5
        if key.startswith("features")
        else torch.zeros(1).expand(shape)
        for key, shape in shapes.items()
    }


def test_stlpips_weights_ride_in_its_package(ladder, tmp_path):
    pytest.importorskip("pyiqa")
    pytest.importorskip("stlpips_pytorch")
    scores = score_stimuli(ladder, "stlpips", cache_dir=tmp_path)
    assert scores[0] < scores[-1] < 0


class TestScoring:
    def test_scores_are_computed_once(self, ladder, tmp_path, monkeypatch):
        first = score_stimuli(ladder, "psnr", cache_dir=tmp_path)
        monkeypatch.setattr(computing, "measure", None)  # would fail if it were called
        np.testing.assert_array_equal(score_stimuli(ladder, "psnr", cache_dir=tmp_path), first)

    def test_the_file_says_what_its_values_are(self, ladder, tmp_path):
        score_stimuli(ladder, "psnr", cache_dir=tmp_path)
        (path,) = (tmp_path / "computed").glob("psnr-*.sqlite")
        with sqlite3.connect(path) as connection:
            (document,) = connection.execute("SELECT document FROM about").fetchone()
        for part in ('"expert": "psnr"', '"dtype": "float64"', '"resize": "none"', "scikit-image"):
            assert part in document

    def test_a_no_reference_score_is_of_the_image_not_the_pair(self, ladder, tmp_path):
        score_stimuli(ladder, "noise_sigma", cache_dir=tmp_path)
        (path,) = (tmp_path / "computed").glob("noise_sigma-*.sqlite")
        with sqlite3.connect(path) as connection:
            keys = {key for (key,) in connection.execute("SELECT stimulus FROM computed")}
        assert keys == {s.image.sha256 for s in ladder.stimuli}

    def test_another_size_than_the_reference_is_named(self, tmp_path, photo):
        PIL.Image.fromarray(photo).save(tmp_path / "r.png")
        PIL.Image.fromarray(photo[:200]).save(tmp_path / "d.png")
        rows = [Rated(tmp_path / "d.png", 1.0, reference=tmp_path / "r.png")]
        bad = StimulusSet("bad", verify(rows, name="bad"), (0.0, 1.0))
        with pytest.raises(StimulusError, match=r"d.png has 256 x 200 .* 256 x 256: expert psnr"):
            score_stimuli(bad, "psnr", cache_dir=tmp_path)

    def test_no_reference_where_one_is_needed(self, tmp_path, photo):
        PIL.Image.fromarray(photo).save(tmp_path / "d.png")
        alone = StimulusSet("x", verify([Rated(tmp_path / "d.png", 1.0)], name="x"), (0.0, 1.0))
        with pytest.raises(StimuliAbsent, match=r"d.png of x has none"):
            score_stimuli(alone, "psnr", cache_dir=tmp_path)

    def test_what_was_computed_before_a_failure_is_kept(self, tmp_path):
        opener = Opener(fails_at, (40,))
        items = [Item(str(k), Path(str(k))) for k in range(64)]
        with pytest.raises(StimulusError, match=r"40 cannot be measured .*ZeroDivisionError"):
            compute_once(items, opener, {"x": 1}, Where(tmp_path, jobs=1), name="t")
        kept = stored(tmp_path, "t")
        assert set(kept) == {str(k) for k in range(40)}

    def test_jobs_in_parallel_give_identical_files(self, many, tmp_path):
        values = [
            score_stimuli(many, "psnr", cache_dir=tmp_path / str(jobs), jobs=jobs)
            for jobs in (1, 2)
        ]
        np.testing.assert_array_equal(*values)
        assert file_of(tmp_path / "1") == file_of(tmp_path / "2")

    def test_a_ray_cluster_gives_identical_files(self, many, tmp_path):
        pytest.importorskip("ray")
        here = score_stimuli(many, "psnr", cache_dir=tmp_path / "a", jobs=1)
        there = score_stimuli(many, "psnr", cache_dir=tmp_path / "b", ray_address="local")
        np.testing.assert_array_equal(here, there)
        assert file_of(tmp_path / "a") == file_of(tmp_path / "b")

    def test_an_absent_ray_says_which_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        items = [Item(str(k), Path(str(k))) for k in range(20)]
        with pytest.raises(MissingExtra, match=r"iqa_checks\[ray\]"):
            compute_once(items, Opener(root_of), {}, Where(tmp_path, 1, "local"), name="t")

    def test_a_damaged_file_is_named(self, ladder, tmp_path):
        score_stimuli(ladder, "psnr", cache_dir=tmp_path)
        (path,) = (tmp_path / "computed").glob("psnr-*.sqlite")
        path.write_bytes(b"not a database at all, but long enough to be read as one" * 40)
        with pytest.raises(UsageError, match="delete it, and it is computed again"):
            score_stimuli(ladder, "psnr", cache_dir=tmp_path)

    def test_a_killed_run_goes_on_where_it_was(self, tmp_path):
        script = textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from iqa_checks.experts.computing import Item, Opener, Where, compute_once
            def slow():
                def one(pairs):
                    time.sleep(0.02)
                    return [(float(path.name),) for path, _ in pairs]
                return one
            items = [Item(str(k), Path(str(k))) for k in range(400)]
            compute_once(items, Opener(slow), {}, Where(Path(sys.argv[1]), jobs=1), name="t")
            """
        )
        run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        until = time.monotonic() + 30
        while time.monotonic() < until and len(stored(tmp_path, "t")) < 16:
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        before = stored(tmp_path, "t")
        assert 16 <= len(before) < 400
        items = [Item(str(k), Path(str(k))) for k in range(400)]
        values = compute_once(items, Opener(counted), {}, Where(tmp_path, jobs=1), name="t")
        assert len(CALLS) == 400 - len(before)
        np.testing.assert_array_equal(values[:, 0], np.arange(400))

    def test_two_runs_at_once_compute_each_image_once(self, tmp_path):
        script = textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from iqa_checks.experts.computing import Item, Opener, Where, compute_once
            folder = Path(sys.argv[1])
            def logged():
                def one(pairs):
                    ((path, _),) = pairs
                    time.sleep(0.01)
                    with open(folder / "calls", "a") as file:
                        file.write(path.name + "\\n")
                    return [(float(path.name),)]
                return one
            items = [Item(str(k), Path(str(k))) for k in range(60)]
            values = compute_once(items, Opener(logged), {}, Where(folder, jobs=1), name="t")
            assert values[:, 0].tolist() == list(range(60))
            """
        )
        runs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
        assert [run.wait(60) for run in runs] == [0, 0]
        calls = (tmp_path / "calls").read_text().split()
        assert sorted(calls, key=int) == [str(k) for k in range(60)]


CALLS: list[str] = []


def counted():
    def one(pairs):
        CALLS.extend(path.name for path, _ in pairs)
        return [(float(path.name),) for path, _ in pairs]

    return one


def root_of():
    return lambda pairs: [(float(path.name) ** 0.5,) for path, _ in pairs]


def file_of(folder: Path) -> bytes:
    (path,) = (folder / "computed").glob("*.sqlite")
    return path.read_bytes()


def fails_at(k: int):
    return lambda pairs: [(1 / (int(path.name) - k),) for path, _ in pairs]


def stored(folder: Path, name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in (folder / "computed").glob(f"{name}-*.sqlite"):
        connection = sqlite3.connect(path)
        try:
            found |= dict(connection.execute("SELECT stimulus, value FROM computed"))
        except sqlite3.OperationalError:
            pass  # the table is being made
        finally:
            connection.close()
    return found


class TestFusion:
    mos = np.linspace(5, 95, 60)

    def test_each_is_aligned_to_the_mos_and_weighs_the_same(self):
        other = 1000 - 5 * (100 - self.mos) ** 1.2
        fused = fuse({"a": self.mos / 100, "b": other}, self.mos, align="rank")
        np.testing.assert_allclose(fused, self.mos)

    def test_logistic_stays_on_the_scale_of_the_mos(self):
        rng = np.random.default_rng(0)
        fused = fuse({"a": self.mos + rng.normal(0, 5, 60)}, self.mos)
        assert np.corrcoef(fused, self.mos)[0, 1] > 0.95
        assert -10 < fused.min() < 30
        assert 70 < fused.max() < 110

    def test_out_of_fold_does_not_see_its_own_mos(self):
        """Unrelated scores: the alignment in the sample finds something, out of it nothing."""
        rng = np.random.default_rng(1)
        noise = rng.normal(size=60)
        within = fuse({"a": noise}, self.mos, align="rank")
        without = fuse({"a": noise}, self.mos, align="rank", n_folds=60)
        k = int(np.argmax(noise))
        assert within[k] == self.mos.max()
        assert without[k] == np.delete(self.mos, k).max()

    def test_groups_stay_together(self):
        groups = np.repeat(np.arange(6), 10)
        whole = fuse({"a": self.mos}, self.mos, n_folds=6, groups=groups.tolist())
        assert np.isfinite(whole).all()
        with pytest.raises(UsageError, match="7 folds for 6"):
            fuse({"a": self.mos}, self.mos, n_folds=7, groups=groups.tolist())

    def test_paper_turns_a_reversed_expert_around(self):
        fused = fuse({"a": -self.mos}, self.mos, preset="paper")
        assert np.corrcoef(fused, self.mos)[0, 1] > 0.95

    @pytest.mark.parametrize(
        ("experts", "says"),
        [
            ({}, "no expert"),
            ({"a": np.full(60, np.nan)}, "60 scores are not finite"),
            ({"a": np.zeros(60)}, "gives 0 to all 60"),
            ({"a": np.zeros(59)}, "59"),
        ],
    )
    def test_bad_input(self, experts, says):
        with pytest.raises(UsageError, match=says):
            fuse(experts, self.mos)

    def test_unknown_alignment(self):
        with pytest.raises(UsageError, match="unknown alignment 'linear'"):
            fuse({"a": self.mos}, self.mos, align="linear")
