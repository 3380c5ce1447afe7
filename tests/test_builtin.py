"""Generated sets: counts, labels, determinism, and a cache that repairs itself."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms
from scipy.stats import spearmanr
from skimage import color

from iqa_checks.builtin import BUILTIN, PHOTOS, builtin_set, colors, kadid, textures
from iqa_checks.builtin.generation import Recipe, generate
from iqa_checks.builtin.photographs import box, from_folder, photograph
from iqa_checks.builtin.picks import spread
from iqa_checks.distortions import distort, kadid_opinion
from iqa_checks.errors import DesignError, StimulusError, UsageError

SETS = [(scenario, name) for scenario, names in BUILTIN.items() for name in names]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all tests here: an image is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("scenario", "name"), SETS)
def test_small_sets(cache, scenario, name):
    """As many as asked for, on their scale, labelled, exemplars apart and complete."""
    stimuli = builtin_set(scenario, cache, name=name, limit=9)
    assert len(stimuli) == 9
    low, high = stimuli.scale
    every = (*stimuli.stimuli, *stimuli.exemplars)
    assert all(low <= s.mos <= high for s in every)
    assert len({s.mos for s in stimuli.stimuli}) > 3
    assert (scenario == "nr") != any(s.reference for s in every)
    assert len(stimuli.exemplars) >= 4
    assert not {s.image.sha256 for s in stimuli.stimuli} & {
        s.image.sha256 for s in stimuli.exemplars
    }
    assert stimuli.notes
    assert stimuli.opinion != "MOS"


def test_full_reference_set_has_equally_many_of_each(cache):
    """Ranks are within a reference: at least three each, exemplars of another picture."""
    stimuli = builtin_set("fr", cache, limit=12)
    counts = Counter(stimuli.references)
    assert set(counts.values()) == {3}
    assert not set(counts) & {s.reference_image.sha256 for s in stimuli.exemplars}
    assert len({s.reference for s in stimuli.exemplars}) == 1


def test_no_reference_set_spans_the_scale(cache):
    """From nearly ruined to nearly untouched."""
    stimuli = builtin_set("nr", cache, limit=9)
    assert stimuli.mos.min() < 2
    assert stimuli.mos.max() > 4
    assert stimuli.attribute == "structure"
    assert "not ratings" in stimuli.notes[0]


def test_sets_are_the_same_in_another_cache(cache, tmp_path):
    """Names, bytes and scores: a result can be repeated elsewhere."""
    first = builtin_set("nr", cache, limit=3)
    second = builtin_set("nr", tmp_path, limit=3)
    assert second.manifest == first.manifest
    assert [s.path.name for s in second.stimuli] == [s.path.name for s in first.stimuli]


def test_seed_gives_another_set(cache):
    """Seeds move picks and noise."""
    assert builtin_set("nr", cache, limit=3, seed=1).manifest != (
        builtin_set("nr", cache, limit=3).manifest
    )


def test_damaged_image_is_made_again(cache):
    """A truncated file, or one with other bytes, does not match its record."""
    stimuli = builtin_set("nr", cache, limit=3)
    path = stimuli.stimuli[1].path
    whole = path.read_bytes()
    for damage in (whole[:1000], whole + b"x", b""):
        path.write_bytes(damage)
        assert builtin_set("nr", cache, limit=3).manifest == stimuli.manifest
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stimuli.stimuli[1].image.sha256


def test_cached_images_are_not_made_again(cache, monkeypatch):
    """The second run only reads."""
    stimuli = builtin_set("nr", cache, limit=3)
    before = {s.path: s.path.stat().st_mtime_ns for s in stimuli.stimuli}
    builtin_set("nr", cache, limit=3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [p for p in cache.rglob("tmp*") if p.is_file()]


def test_too_few_and_unknown(cache):
    """Two stimuli at least; names are checked per scenario."""
    with pytest.raises(DesignError, match="at least 2 stimuli, asked for 1"):
        builtin_set("nr", cache, limit=1)
    with pytest.raises(UsageError, match="unknown generated nr set 'builtin-color'"):
        builtin_set("nr", cache, name="builtin-color")


# --- which stimuli ------------------------------------------------------------------------------


def test_quick_sets_hold_all_types():
    """30 stimuli: each of KADID's 25 types at least once, FR and NR; scores spread evenly."""
    pictures = box()
    for cells in (kadid._for_references(pictures, 30, 0), kadid._over_all(pictures, 30, 0)):
        assert len(cells) == len(set(cells)) == 30
        types = Counter(cell.number for cell in cells)
        assert set(types) == set(range(1, 26))
        assert max(types.values()) <= 2
        opinions = sorted(cell.opinion[0] for cell in cells)
        assert np.histogram(opinions, bins=3, range=(1.3, 4.61))[0].min() >= 6


def test_untouched_picture_is_used_once():
    """Four cells of KADID-10k are the same pixels; one set never holds two of them."""
    reference = photograph("chelsea")
    for number, level in [(1, 1), *kadid.UNTOUCHED]:
        assert np.array_equal(distort(reference, number, level, 1), reference), number
    assert kadid.UNTOUCHED.isdisjoint(kadid.CELLS)
    assert len(kadid.CELLS) == 122


@pytest.mark.parametrize("n", [2, 3, 7, 30, 31, 150])
def test_as_many_as_asked_for(n):
    """Shares add up, whatever the number."""
    pictures = box()
    assert len(kadid._for_references(pictures, n, 0)) == n
    assert len(kadid._over_all(pictures, n, 0)) == n


def test_spread_ignores_the_order_of_its_input():
    scores = [1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0]
    kinds = [("a",), ("a",), ("b",), ("a",), ("c",), ("b",), ("d",)]
    keys = list("gfedcba")
    chosen = {keys[k] for k in spread(scores, 4, kinds, keys)}
    backwards = spread(scores[::-1], 4, kinds[::-1], keys[::-1])
    assert {keys[::-1][k] for k in backwards} == chosen
    assert len(chosen) == 4


def test_only_selected_images_are_made(tmp_path, monkeypatch):
    """Scores are known before pixels: 3 stimuli and 4 exemplars are 7 distortions, not 610."""
    made = []
    real = kadid._distorted
    monkeypatch.setattr(kadid, "_distorted", lambda *args: made.append(args) or real(*args))
    builtin_set("nr", tmp_path, limit=3)
    assert len(made) == 7


# --- geometry -----------------------------------------------------------------------------------


def test_geometry_moves_the_reference_and_nothing_else(cache):
    """The same distorted images and scores as the structure set; other references."""
    still = builtin_set("fr", cache, limit=12)
    moved = builtin_set("fr", cache, name="builtin-geometry", limit=12)
    assert [s.image.sha256 for s in moved.stimuli] == [s.image.sha256 for s in still.stimuli]
    assert list(moved.mos) == list(still.mos)
    assert not set(moved.references) & set(still.references)
    names = {s.reference.stem for s in moved.stimuli}
    assert names == {"astronaut_mixed", "chelsea_shift", "coffee_rotation", "motorcycle_scale"}
    assert moved.attribute == "geometry"


# --- texture ------------------------------------------------------------------------------------


def test_texture_scores_follow_their_rule():
    """A whole patch has TQD's mean; damage stands below, in KADID-10k's order."""
    whole = textures.Cell("brick", 1).similarity
    assert whole == 0.79
    damaged = [textures.Cell("brick", 0, t, level) for t in textures.TYPES for level in range(2, 6)]
    assert all(0 < cell.similarity < whole for cell in damaged)
    by_opinion = sorted(damaged, key=lambda c: kadid_opinion(c.number, c.level)[0])
    assert by_opinion == sorted(damaged, key=lambda c: c.similarity)


def test_texture_score_of_whole_patches_is_tqds():
    """Mean of variants 1-4, the resampled ones, in TQD's table."""
    table = Path(needed_data(), "score_tables/mllms_for_iqa/TQD_mos.txt").read_text()
    rows = [line.split() for line in table.splitlines() if line.strip()]
    scores = [float(r[-1]) for r in rows if int(Path(r[-2]).stem.split("-")[-1]) <= 4]
    assert len(scores) == 40
    assert np.mean(scores) == pytest.approx(textures.WHOLE, abs=0.005)


@pytest.mark.parametrize("name", [*textures.TESTED, textures.HELD_OUT])
def test_patches_of_a_texture_differ_and_look_alike(name):
    """They do not coincide, yet mean and contrast of the four patches agree."""
    patches = [textures._patch(textures.Cell(name, k), 0) for k in range(4)]
    assert {p.shape for p in patches} == {(256, 256, 3)}
    for other in patches[1:]:
        assert abs(np.corrcoef(patches[0][..., 1].ravel(), other[..., 1].ravel())[0, 1]) < 0.3
        assert other.std() == pytest.approx(patches[0].std(), rel=0.25)
        assert other.mean() == pytest.approx(patches[0].mean(), abs=25)
    assert (textures.texture(name).min(), textures.texture(name).max()) == (0, 255)


def test_every_texture_has_a_whole_patch(cache):
    stimuli = builtin_set("fr", cache, name="builtin-texture", limit=15)
    whole = [s for s in stimuli.stimuli if s.path.stem.endswith("_00_00")]
    assert {s.path.stem.split("_")[0] for s in whole} == set(textures.TESTED)
    assert all(s.mos == max(stimuli.mos) for s in whole)


# --- colour -------------------------------------------------------------------------------------


def test_color_scores_are_the_ciede2000_of_the_files(cache):
    """Measured on what is sent, and kept with it."""
    stimuli = builtin_set("difference", cache, name="builtin-color", limit=6)
    for s in stimuli.stimuli:
        a, b = (color.rgb2lab(np.asarray(PIL.Image.open(p))) for p in (s.reference, s.path))
        assert s.mos == pytest.approx(color.deltaE_ciede2000(a, b).mean(), abs=1e-3)
    assert stimuli.polarity == "lower_better"
    assert stimuli.quality[np.argmin(stimuli.mos)] == max(stimuli.quality)


@pytest.mark.parametrize("kind", [k for k in colors.ALTERATIONS if k != "profile"])
def test_alterations_grow(kind):
    """Away from the identity on either side, the difference grows."""
    pixels = colors._thumbnail(photograph("astronaut"))
    identity = {"gamma": 1.0, "saturation": 1.0}.get(kind, 0.0)
    assert np.abs(colors.altered(pixels, kind, identity).astype(int) - pixels).max() <= 1
    amounts = colors.ALTERATIONS[kind][1]
    for side in (-1, 1):
        ordered = sorted(
            (a for a in amounts if (a - identity) * side > 0), key=lambda a: abs(a - identity)
        )
        sizes = [colors._difference(pixels, kind, a) for a in ordered]
        assert len(sizes) >= 3
        assert sizes == sorted(sizes)


def test_profiles_are_their_own_inverses():
    """Reading sRGB as P3 and back: what was in gamut returns."""
    x = np.random.default_rng(1).uniform(0.45, 0.55, (10, 10, 3))
    for there, back in ((1, 2), (3, 4), (5, 6)):
        changed = colors.wrong_profile(x, there)
        assert np.abs(changed - x).max() > 0.01
        assert np.allclose(colors.wrong_profile(changed, back), x, atol=1e-9)


def test_color_rule_agrees_with_people():
    """Mean CIEDE2000 on the 35 rated pairs of SPCD's scene I0249: SRCC .92 at 64 pixels."""
    folder = Path(needed_data(), "spcd_scene0249")
    pairs = list(csv.DictReader((folder / "pairs.csv").open()))
    seen = {}
    for pair in pairs:
        for name in (pair["image1"], pair["image2"]):
            with PIL.Image.open(next(folder.rglob(name))) as image:
                small = image.convert("RGB").resize((64, 64), PIL.Image.Resampling.BOX)
            seen[name] = np.asarray(small)
    rule = [colors.mean_ciede2000(seen[p["image1"]], seen[p["image2"]]) for p in pairs]
    human = [float(p["visual_difference_mean"]) for p in pairs]
    assert len(pairs) == 35
    assert spearmanr(rule, human).statistic > 0.9


def needed_data():
    data = os.environ.get("IQA_CHECKS_RATED_DATA")
    return data or pytest.skip("IQA_CHECKS_RATED_DATA is not set")


# --- the cache ----------------------------------------------------------------------------------


def recipe(name, pixels, measure=None):
    return Recipe(name, lambda: np.full((4, 4, 3), pixels, np.uint8), measure)


def test_damaged_or_absent_record_is_made_again(tmp_path):
    """Empty, garbage or missing: the image and its measured score come out the same."""
    wanted = [recipe("a/b", 7, lambda pixels: float(pixels.mean()))]
    first = generate(wanted, tmp_path)["a/b"]
    assert first.measured == 7.0
    record = first.path.with_suffix(".sha256")
    for text in ("", "0" * 64, f"{first.sha256} not-a-number", "\x00"):
        record.write_text(text)
        assert generate(wanted, tmp_path)["a/b"] == first
    record.unlink()
    assert generate(wanted, tmp_path)["a/b"] == first


def test_a_failing_recipe_leaves_nothing_behind(tmp_path):
    """The error is the recipe's own; no half file, no lock that blocks the next run."""

    def fail():
        raise ValueError("no pixels")

    with pytest.raises(ValueError, match="no pixels"):
        generate([Recipe("x", fail), recipe("y", 1)], tmp_path)
    assert not list(tmp_path.glob("x*"))
    assert set(generate([recipe("x", 2), recipe("y", 1)], tmp_path)) == {"x", "y"}


def test_unwritable_cache_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StimulusError, match=r"cannot write generated images to .*--iqa-cache DIR"):
        generate([recipe("x", 1)], tmp_path / "file")


def test_two_runs_at_once_do_not_collide(tmp_path):
    """Three processes, one empty cache: the same set, and each image made once."""
    code = (
        "import sys; from pathlib import Path; from iqa_checks.builtin import builtin_set, kadid\n"
        "made = []; real = kadid._distorted\n"
        "kadid._distorted = lambda *args: made.append(args) or real(*args)\n"
        "print(builtin_set('nr', Path(sys.argv[1]), limit=4).manifest, len(made))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    manifests, counts = zip(*(run.communicate(timeout=120)[0].split() for run in runs), strict=True)
    assert len(set(manifests)) == 1
    assert sum(map(int, counts)) == 8
    assert not [p for p in tmp_path.rglob("tmp*") if p.is_file()]


# --- photographs of one's own -------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """One camera picture of 900 x 600."""
    save(tmp_path / "photos" / "one.png", size=(900, 600))
    return tmp_path / "photos"


def save(path, *, size=(640, 480), mode="RGB", name="coffee", **options):
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(photograph(name)).resize(size).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(("scenario", "name"), [(s, n) for s, ns in PHOTOS.items() for n in ns])
def test_one_photograph_is_enough(folder, tmp_path, scenario, name):
    """All sets from one picture; exemplars show another; notes tell what was done."""
    stimuli = builtin_set(scenario, tmp_path / "c", name=name, photos=folder, limit=5)
    assert (stimuli.name, len(stimuli), len(stimuli.exemplars)) == (name, 5, 4)
    assert (stimuli.stimuli[0].image.width, stimuli.stimuli[0].image.height) == (543, 362)
    assert any("one scaled from 900 x 600 to 543 x 362" in note for note in stimuli.notes)
    assert any("1 of 1 photographs" in note for note in stimuli.notes)
    shown = {s.path.name.split("_")[0] for s in stimuli.exemplars}
    assert shown <= {"rocket", "flower"}


def test_duplicates_and_other_files(folder):
    """The same bytes count once; other kinds of files are left alone; none is enlarged."""
    (folder / "copy.png").write_bytes((folder / "one.png").read_bytes())
    save(folder / "two.jpg", size=(400, 300), name="china", quality=95)
    (folder / "notes.txt").write_text("not a photograph")
    (folder / ".hidden.png").write_bytes(b"")
    pictures = from_folder(folder, 0)
    assert sorted(p.pixels().shape for p in pictures.tested) == [(300, 400, 3), (362, 543, 3)]
    assert "2 of 3 photographs" in pictures.note


def test_orientation(folder):
    """A sideways phone picture is turned."""
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    save(folder / "one.png", size=(480, 360), exif=turned)
    assert from_folder(folder, 0).tested[0].pixels().shape == (480, 360, 3)


def test_colour_profile(folder):
    """sRGB as a profile changes nothing; a damaged one is refused."""
    plain = from_folder(folder, 0).tested[0].pixels()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with PIL.Image.open(folder / "one.png") as image:
        image.save(folder / "one.png", icc_profile=srgb)
    assert np.array_equal(from_folder(folder, 0).tested[0].pixels(), plain)
    with PIL.Image.open(folder / "one.png") as image:
        image.save(folder / "one.png", icc_profile=b"damaged")
    with pytest.raises(StimulusError, match=r"one.png has a damaged colour profile; expected sRGB"):
        from_folder(folder, 0)


def test_pictures_span_the_range(folder):
    """A pale picture is stretched, and said to be."""
    pale = (photograph("coffee") // 2 + 60).astype(np.uint8)
    PIL.Image.fromarray(pale).save(folder / "one.png")
    [picture] = from_folder(folder, 0).tested
    assert (picture.pixels().min(), picture.pixels().max()) == (0, 255)
    assert picture.note == "stretched from 60..187"


BAD = {
    "is greyscale": {"mode": "L"},
    "has a palette": {"mode": "P"},
    "is partly transparent": {"mode": "RGBA"},
    "at least 192 pixels on the short side": {"size": (160, 120)},
    "would be 1402 x 140": {"size": (3000, 300)},
}


@pytest.mark.parametrize("message", BAD)
def test_unfit_photographs(folder, message):
    """One line, naming the file, the finding and what to do."""
    path = save(folder / "bad.png", **BAD[message])
    if "transparent" in message:
        image = PIL.Image.open(path)
        image.putalpha(128)
        image.save(path)
    with pytest.raises(StimulusError, match=message) as caught:
        from_folder(folder, 0)
    assert "\n" not in str(caught.value)
    assert "bad.png" in str(caught.value)


def test_more_unfit_photographs(folder):
    """CMYK, animated, grey in colour channels, flat, truncated, empty."""

    def refused(message):
        with pytest.raises(StimulusError, match=message):
            from_folder(folder, 0)

    save(folder / "one.jpg", mode="CMYK")
    refused("one.jpg is CMYK")
    (folder / "one.jpg").unlink()
    frames = [PIL.Image.fromarray(photograph(n)) for n in ("coffee", "china")]
    frames[0].save(folder / "one.webp", save_all=True, append_images=frames[1:])
    refused("is animated \\(2 frames\\)")
    (folder / "one.webp").unlink()
    PIL.Image.fromarray(photograph("coffee")).convert("L").convert("RGB").save(folder / "one.png")
    refused("is grey in colour channels")
    PIL.Image.new("RGB", (300, 300), (9, 20, 20)).save(folder / "one.png")
    refused("hardly any contrast")
    (folder / "one.png").write_bytes(b"")
    refused("empty")
    (folder / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n0000")
    refused("one.png is not")
    (folder / "one.png").unlink()
    refused("holds no photographs")
    folder.rmdir()
    refused("cannot be read")
