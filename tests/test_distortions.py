"""Known answers for the 25 KADID-10k distortions, and the promises of the public functions."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_checks import distortions
from iqa_checks.distortions import (
    DISTORTIONS,
    GEOMETRIC,
    Bytes,
    Floats,
    distort,
    kadid_opinion,
    transform_reference,
)

CELLS = [(number, level) for number in range(1, 26) for level in range(1, 6)]
RANDOM_TYPES = {3, 5, 11, 12, 13, 14, 15, 19, 20, 23}
# Odd and unequal sides, so that a swap of rows and columns cannot hide.
HEIGHT, WIDTH = 97, 131


@pytest.fixture(scope="module")
def photo() -> Bytes:
    """A crop of a real photograph that spans 0..255, (97, 131, 3)."""
    from skimage import data

    crop = np.asarray(data.astronaut())[20 : 20 + HEIGHT, 150 : 150 + WIDTH].copy()
    crop[0, 0], crop[0, 1] = 0, 255
    return crop


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def unit(number: int, level: int) -> float:
    return DISTORTIONS[number].levels[level - 1]


def grey(value: float, side: int = 64) -> Bytes:
    """A flat grey field with one black and one white pixel, so that no stretch changes it."""
    image = np.full((side, side, 3), value, dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    return image


def rmse(first: Bytes, second: Bytes) -> float:
    return float(np.sqrt(np.mean((first.astype(float) - second.astype(float)) ** 2)))


# --- all cells ----------------------------------------------------------------------------------


def test_the_table_has_kadids_types_in_order() -> None:
    assert list(DISTORTIONS) == list(range(1, 26))
    assert all(number == distortion.number for number, distortion in DISTORTIONS.items())
    assert all(len(distortion.levels) == 5 for distortion in DISTORTIONS.values())
    assert len({distortion.name for distortion in DISTORTIONS.values()}) == 25


def test_names_are_those_of_the_opinion_table() -> None:
    table = Path(distortions.__file__).parent / "data" / "kadid_type_level_means.csv"
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    named = {int(line.split(",")[0]): line.split(",")[2] for line in lines}
    slugs = {number: name.lower().replace(" ", "-") for number, name in named.items()}
    assert slugs == {number: distortion.name for number, distortion in DISTORTIONS.items()}


@pytest.mark.parametrize(("number", "level"), CELLS)
def test_every_cell_keeps_shape_and_dtype_and_repeats_itself(
    photo: Bytes, number: int, level: int
) -> None:
    before = photo.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = distort(photo, number, level, seed=7)
    assert first.shape == photo.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(first, distort(photo, number, level, seed=7))


@pytest.mark.parametrize("number", DISTORTIONS)
def test_the_seed_matters_for_random_types_only(photo: Bytes, number: int) -> None:
    images = [distort(photo, number, 4, seed) for seed in range(4)]
    changed = any((image != images[0]).any() for image in images[1:])
    assert changed == (number in RANDOM_TYPES)


@pytest.mark.parametrize("shape", [(64, 64), (65, 91), (90, 64)])
@pytest.mark.parametrize("number", DISTORTIONS)
def test_small_images_work(rng: np.random.Generator, number: int, shape: tuple[int, int]) -> None:
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert distort(image, number, 5, seed=0).shape == image.shape


@pytest.mark.parametrize("number", sorted(set(DISTORTIONS) - {13, 23}))
def test_a_flat_image_survives_every_type(number: int) -> None:
    image = np.full((64, 64, 3), 128, dtype=np.uint8)
    assert distort(image, number, 5, seed=0).shape == image.shape


def test_a_read_only_image_is_accepted(photo: Bytes) -> None:
    frozen = photo.copy()
    frozen.setflags(write=False)
    for number in DISTORTIONS:
        distort(frozen, number, 3, seed=0)


@pytest.mark.parametrize("cell", [(1, 1), (3, 1), (8, 1), (18, 3)])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 254), (10, 240)])
def test_the_four_untouched_cells_only_stretch(
    rng: np.random.Generator, cell: tuple[int, int], low: int, high: int
) -> None:
    image = rng.integers(low, high + 1, (70, 80, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = low, high
    expected = np.floor((image / 255.0 - low / 255) / (high / 255 - low / 255) * 255 + 0.5)
    for seed in range(5):
        np.testing.assert_array_equal(distort(image, *cell, seed=seed), expected)


@pytest.mark.parametrize("number", [1, 2, 3, 8, 10, 11, 12, 13, 14, 16, 17, 19, 24])
def test_severity_grows_with_level(photo: Bytes, number: int) -> None:
    distances = [rmse(distort(photo, number, level, seed=3), photo) for level in range(1, 6)]
    assert all(milder < worse for milder, worse in pairwise(distances)), distances


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 26, -1])
def test_unknown_type_is_named(photo: Bytes, number: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.25, got {number}$"):
        distort(photo, number, 1, seed=0)


@pytest.mark.parametrize("level", [0, 6, -1])
def test_unknown_level_is_named(photo: Bytes, level: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.5, got {level}$"):
        distort(photo, 1, level, seed=0)
    with pytest.raises(ValueError, match=f"level {level}$"):
        kadid_opinion(1, level)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 4), (64, 64, 1), (1, 64, 64, 3), (0, 64, 3)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\), got \(") as caught:
        distort(image, 1, 1, seed=0)
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match="shape"):
        transform_reference(image, "shift")


def test_wrong_dtype_is_named(photo: Bytes) -> None:
    with pytest.raises(ValueError, match="uint8, got float64"):
        distort(photo / 255.0, 1, 1, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "side"), [(20, 47), (23, 31), (5, 1)])
def test_an_image_too_small_for_its_blocks_is_refused(number: int, side: int) -> None:
    with pytest.raises(ValueError, match=f"at least {side + 1} pixels.*width {side}$"):
        distort(np.zeros((100, side, 3), dtype=np.uint8), number, 5, seed=0)
    fits = np.zeros((side + 1, side + 1, 3), dtype=np.uint8)
    assert distort(fits, number, 5, seed=0).shape == fits.shape


def test_negative_seed_and_unknown_transform_are_named(photo: Bytes) -> None:
    with pytest.raises(ValueError, match="got -3"):
        distort(photo, 11, 1, seed=-3)
    with pytest.raises(ValueError, match="shift, rotation, scale, mixed, got 'shear'"):
        transform_reference(photo, "shear")


# --- blur ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "radius"), [(1, 1), (2, 1), (3, 2), (4, 4), (5, 10)])
def test_gaussian_reaches_two_sigma(level: int, radius: int) -> None:
    x = np.zeros((41, 41, 3))
    x[20, 20] = 1
    out = distortions.gaussian_blur(x, unit(1, level), np.random.default_rng(0))[..., 0]
    offset = np.arange(-20, 21)
    line = np.where(np.abs(offset) <= radius, np.exp(-(offset**2) / (2 * unit(1, level) ** 2)), 0)
    line /= line.sum()
    np.testing.assert_allclose(out, np.outer(line, line), atol=1e-15)


def test_lens_kernel_of_radius_1() -> None:
    corner, edge, centre = 0.0251, 0.1453, 0.3183
    expected = [[corner, edge, corner], [edge, centre, edge], [corner, edge, corner]]
    np.testing.assert_allclose(distortions._disk_kernel(1), expected, atol=5e-5)


@pytest.mark.parametrize("radius", [1, 2, 4, 6, 8])
def test_lens_kernel_is_the_overlap_with_a_disk(radius: int) -> None:
    points = (np.arange((2 * radius + 1) * 101) + 0.5) / 101 - radius - 0.5
    inside = (points[:, None] ** 2 + points[None, :] ** 2 <= radius**2).astype(float)
    side = 2 * radius + 1
    share = inside.reshape(side, 101, side, 101).mean(axis=(1, 3)) / (np.pi * radius**2)
    kernel = distortions._disk_kernel(radius)
    assert kernel.shape == (side, side)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(kernel, share, atol=1e-3 / radius**2)


def test_lens_blur_replicates_edges_and_uses_the_kernel(photo: Bytes) -> None:
    from scipy.ndimage import convolve

    x = photo / 255.0
    out = distortions.lens_blur(x, 4, np.random.default_rng(0))
    expected = convolve(x, distortions._disk_kernel(4)[:, :, None], mode="nearest")
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_motion_kernels_of_length_9_and_2_and_1() -> None:
    nine = distortions._motion_kernel(9, 0)
    assert nine.shape[0] == nine.shape[1]
    assert np.count_nonzero(nine) == 9
    np.testing.assert_allclose(nine[nine.shape[0] // 2, 1:-1], 1 / 9)
    two = distortions._motion_kernel(2, 0)
    np.testing.assert_allclose(two[two != 0], [0.25, 0.5, 0.25])
    assert np.count_nonzero(two[two.shape[0] // 2]) == 3
    for angle in range(181):
        one = distortions._motion_kernel(1, angle)
        assert one[one.shape[0] // 2, one.shape[1] // 2] == 1
        assert np.count_nonzero(one) == 1


def test_motion_angle_is_counter_clockwise() -> None:
    kernel = distortions._motion_kernel(10, 30)
    rows, columns = np.nonzero(kernel)
    middle = kernel.shape[0] // 2
    # Up and right share a sign: to the right of the centre the segment lies in upper rows.
    assert np.sum(kernel[rows, columns] * (columns - middle) * (middle - rows)) > 1
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)
    upright = distortions._motion_kernel(9, 90)
    np.testing.assert_allclose(upright, distortions._motion_kernel(9, 0).T, atol=1e-12)


# --- colour -------------------------------------------------------------------------------------


def test_lab_agrees_with_skimage(photo: Bytes) -> None:
    from skimage.color import lab2rgb, rgb2lab

    x = photo / 255.0
    lab = distortions._lab(x)
    np.testing.assert_allclose(lab, rgb2lab(x), atol=2e-3)
    np.testing.assert_allclose(distortions._rgb(lab), x, atol=1e-12)
    softened = lab * np.array([1.0, 0.7, 0.7])
    np.testing.assert_allclose(distortions._rgb(softened), lab2rgb(softened), atol=1e-4)


def test_color_diffusion_keeps_greys_and_multiplies_flat_chroma() -> None:
    np.testing.assert_array_equal(distort(grey(90), 4, 5, seed=0), grey(90))
    flat = np.broadcast_to(np.array([0.45, 0.5, 0.5]), (64, 64, 3))
    out = distortions._lab(distortions.color_diffusion(flat, 3, np.random.default_rng(0)))
    np.testing.assert_allclose(out, distortions._lab(flat) * np.array([1, 3, 3]), atol=1e-9)


def test_color_shift_moves_green_alone_and_near_edges_alone(photo: Bytes) -> None:
    out = distort(photo, 5, 5, seed=1)
    np.testing.assert_array_equal(out[..., [0, 2]], photo[..., [0, 2]])
    assert (out[..., 1] != photo[..., 1]).any()
    step = np.zeros((100, 200, 3))
    step[:, 100:] = 1
    moved = distortions.color_shift(step, 12, np.random.default_rng(2))
    np.testing.assert_array_equal(moved[:, :60], step[:, :60])
    np.testing.assert_array_equal(moved[:, 140:], step[:, 140:])
    # Down and right: green arrives late, so the right of the edge turns magenta.
    assert (moved[:, 100:112, 1] < 1).any()
    np.testing.assert_array_equal(moved[:, :100, 1], 0)


@pytest.mark.parametrize("level", range(1, 6))
def test_color_quantization_dithers_with_so_many_colours(photo: Bytes, level: int) -> None:
    colors = int(unit(6, level))
    out = distortions._to_bytes(
        distortions.color_quantization(photo / 255.0, colors, np.random.default_rng(0))
    )
    assert len(np.unique(out.reshape(-1, 3), axis=0)) <= colors
    # Dithering keeps local means: after a blur the error shrinks far more than banding would let.
    blurred = distortions._gaussian((out - photo.astype(float)), 3.0)
    assert np.sqrt(np.mean(blurred**2)) < 0.45 * rmse(out, photo)


@pytest.mark.parametrize("gain", [0.4, 0.2, 0.1, 0.0])
def test_saturation_1_is_s_of_hsv(photo: Bytes, gain: float) -> None:
    from skimage.color import hsv2rgb, rgb2hsv

    x = photo / 255.0
    expected = hsv2rgb(rgb2hsv(x) * np.array([1, gain, 1]))
    out = distortions.color_saturation_hsv(x, gain, np.random.default_rng(0))
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_saturation_1_at_level_5_leaves_the_range() -> None:
    x = np.array([[[0.8, 0.4, 0.2]]])
    out = distortions.color_saturation_hsv(x, -0.4, np.random.default_rng(0))
    np.testing.assert_allclose(out, [[[0.8, 0.96, 1.04]]])


def test_saturation_1_at_level_4_is_grey_with_the_maximum(photo: Bytes) -> None:
    expected = np.repeat(photo.max(axis=2, keepdims=True), 3, axis=2)
    np.testing.assert_array_equal(distort(photo, 7, 4, seed=0), expected)


def test_saturation_2_keeps_greys() -> None:
    np.testing.assert_array_equal(distort(grey(90), 8, 5, seed=0), grey(90))


# --- compression --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(1, 6))
def test_jpeg2000_reaches_its_size(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    from skimage import data

    image = np.asarray(Image.fromarray(np.asarray(data.coffee())).resize((512, 384)))
    sizes = []
    save = Image.Image.save

    def measured(self: Image.Image, stream: BytesIO, codec: str, **settings: object) -> None:
        save(self, stream, codec, **settings)
        sizes.append(len(stream.getvalue()))

    monkeypatch.setattr(Image.Image, "save", measured)
    distort(image, 9, level, seed=0)
    assert sizes == [pytest.approx(512 * 384 * 3 / unit(9, level), rel=0.02)]


def test_jpeg_is_pillows_with_halved_chroma(photo: Bytes) -> None:
    for level, quality in enumerate((43, 36, 24, 7, 4), start=1):
        stream = BytesIO()
        Image.fromarray(photo).save(stream, "JPEG", quality=quality, subsampling=2)
        expected = distortions._stretch(np.asarray(Image.open(stream)) / 255.0)
        out = distort(photo, 10, level, seed=0)
        np.testing.assert_array_equal(out, distortions._to_bytes(expected))


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(1, 6))
def test_white_noise_variance(rng: np.random.Generator, level: int) -> None:
    x = np.full((256, 256, 3), 0.5)
    noise = distortions.white_noise(x, unit(11, level), rng) - x
    assert noise.mean() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(noise.var(axis=(0, 1)), unit(11, level), rtol=0.03)
    assert abs(np.corrcoef(noise.reshape(-1, 3).T)[0, 1]) < 0.02


@pytest.mark.parametrize("level", range(1, 6))
def test_colour_component_noise_variance_in_rgb(rng: np.random.Generator, level: int) -> None:
    x = np.full((256, 256, 3), 0.5)
    noise = distortions.white_noise_ycbcr(x, unit(12, level), rng) - x
    factors = noise.var(axis=(0, 1)) / unit(12, level)
    np.testing.assert_allclose(factors, [3.90, 2.17, 5.42], rtol=0.03)


def test_studio_range_agrees_with_skimage(photo: Bytes) -> None:
    from skimage.color import rgb2ycbcr

    x = photo / 255.0
    ours = x @ distortions._YCBCR_FROM_RGB.T + distortions._YCBCR_OFFSET
    np.testing.assert_allclose(ours, rgb2ycbcr(x) / 255, atol=1e-12)


@pytest.mark.parametrize("level", range(1, 6))
def test_impulses_hit_single_channel_values(rng: np.random.Generator, level: int) -> None:
    x = np.full((512, 512, 3), 0.5)
    density = unit(13, level)
    out = distortions.impulse_noise(x, density, rng)
    assert set(np.unique(out)) == {0.0, 0.5, 1.0}
    assert (out == 0).mean() == pytest.approx(density / 2, rel=0.12)
    assert (out == 1).mean() == pytest.approx(density / 2, rel=0.12)
    touched = (out != 0.5).any(axis=2).mean()
    assert touched == pytest.approx(1 - (1 - density) ** 3, rel=0.12)


@pytest.mark.parametrize("level", range(1, 6))
def test_multiplicative_noise_is_uniform(rng: np.random.Generator, level: int) -> None:
    x = np.full((256, 256, 3), 0.5)
    factor = distortions.multiplicative_noise(x, unit(14, level), rng) / x - 1
    bound = np.sqrt(3 * unit(14, level))
    assert factor.var() == pytest.approx(unit(14, level), rel=0.02)
    assert 0.99 * bound < np.abs(factor).max() <= bound + 1e-12
    assert not distortions.multiplicative_noise(np.zeros((9, 9, 3)), 0.05, rng).any()


def test_denoise_removes_noise_and_detail(photo: Bytes) -> None:
    worse = [rmse(distort(photo, 15, level, seed=0), photo) for level in range(1, 6)]
    assert worse == sorted(worse)
    flat = np.full((64, 64, 3), 0.5)
    for variance in DISTORTIONS[15].levels:
        left = distortions.denoise(flat, variance, np.random.default_rng(0))
        assert left.std() < 0.5 * np.sqrt(variance)


# --- brightness and contrast --------------------------------------------------------------------


@pytest.mark.parametrize("middle", [0.55, 0.6, 0.7, 0.85, 1.05, 0.475, 0.45, 0.4, 0.3, 0.1])
def test_the_brightness_curve_is_the_spline_on_three_points(middle: float) -> None:
    from scipy.interpolate import CubicSpline

    x = np.linspace(0, 1, 256)
    spline = CubicSpline([0, 0.5, 1], [0, middle, 1], bc_type="not-a-knot")(x)
    np.testing.assert_allclose(distortions._parabola(x, middle), np.clip(spline, 0, 1), atol=1e-14)


def test_brighten_mixes_both_branches_two_to_one(photo: Bytes) -> None:
    from skimage.color import lab2rgb, rgb2lab

    x = photo / 255.0
    lab = rgb2lab(x)
    lab[..., 0] = np.clip(-0.8 * (lab[..., 0] / 100) ** 2 + 1.8 * lab[..., 0] / 100, 0, 1) * 100
    expected = (2 * np.clip(-0.8 * x**2 + 1.8 * x, 0, 1) + lab2rgb(lab)) / 3
    out = distortions.brighten(x, 0.4, np.random.default_rng(0))
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_darken_at_level_5_blackens_below_three_eighths() -> None:
    x = np.linspace(0, 1, 1001).reshape(-1, 1, 1).repeat(3, axis=2)
    out = distortions.darken(x, 0.8, np.random.default_rng(0))
    np.testing.assert_array_equal(out[x <= 0.375 - 1e-9], 0)
    assert (out[x > 0.376] > 0).all()


@pytest.mark.parametrize("level", range(1, 6))
def test_mean_shift_becomes_gain_or_crushed_shadows(photo: Bytes, level: int) -> None:
    x, amount = photo / 255.0, unit(18, level)
    if amount >= 0:
        expected = np.minimum(x / (1 - amount), 1)
    else:
        expected = np.maximum((x + amount) / (1 + amount), 0)
    out = distort(photo, 18, level, seed=0)
    # Rounding may fall either way where the exact value is a half.
    assert np.abs(out - expected * 255).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("amount", "at_03", "slope", "cubic"),
    [
        (0.3, 0.175, 1.744, -2.976),
        (0.15, 0.2125, 1.521, -2.083),
        (0.0, 0.25, 1.298, -1.190),
        (-0.4, 0.35, 0.702, 1.190),
        (-0.6, 0.40, 0.405, 2.381),
    ],
)
def test_contrast_curve(amount: float, at_03: float, slope: float, cubic: float) -> None:
    from scipy.interpolate import CubicSpline

    assert amount in DISTORTIONS[25].levels
    x = np.linspace(0, 1, 1001)

    def curve(values: Floats) -> Floats:
        return distortions.contrast_change(values, amount, np.random.default_rng(0))

    assert curve(np.array(0.3)) == pytest.approx(at_03)
    u = x - 0.5
    expected = np.clip(0.5 + slope * u + cubic * u**3, 0, 1)
    np.testing.assert_allclose(curve(x), expected, atol=6e-4)
    knots = [0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1]
    spline = CubicSpline([0, 0.3, 0.5, 0.7, 1], knots, bc_type="not-a-knot")
    np.testing.assert_allclose(curve(x), np.clip(spline(x), 0, 1), atol=1e-12)


def test_contrast_keeps_black_white_and_the_middle() -> None:
    x = np.array([0.0, 0.5, 1.0])
    for amount in DISTORTIONS[25].levels:
        out = distortions.contrast_change(x, amount, np.random.default_rng(0))
        np.testing.assert_allclose(out, x, atol=1e-15)


# --- spatial ------------------------------------------------------------------------------------


def test_resampling_by_whole_pixels_is_a_copy_with_repeated_edges(photo: Bytes) -> None:
    x = photo / 255.0
    down, right = np.full((HEIGHT, WIDTH), 3.0), np.full((HEIGHT, WIDTH), -2.0)
    rows = np.minimum(np.arange(HEIGHT) + 3, HEIGHT - 1)
    columns = np.maximum(np.arange(WIDTH) - 2, 0)
    out = distortions._resampled(x, down, right)
    np.testing.assert_array_equal(out, x[np.ix_(rows, columns)])


def test_resampling_reproduces_a_parabola(rng: np.random.Generator) -> None:
    """Keys' kernel is exact for polynomials of degree 2, away from the edges."""
    row, column = np.mgrid[0:40, 0:50].astype(float)

    def field(r: Floats, c: Floats) -> Floats:
        return np.stack([r**2 - 3 * r, 2 * c**2, r * c + 1], axis=-1)

    down, right = rng.normal(0, 1, (2, 40, 50)).clip(-3, 3)
    out = distortions._resampled(field(row, column), down, right)
    expected = field(row + down, column + right)
    np.testing.assert_allclose(out[6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-9)


def test_patches_touch_a_bounded_area_and_only_copy(photo: Bytes) -> None:
    out = distort(photo, 20, 1, seed=0)
    known = {tuple(pixel) for pixel in photo.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in out.reshape(-1, 3)} <= known
    changed = (out != photo).any(axis=2)
    assert 0 < changed.sum() <= 20 * 16 * 16
    # Corners lie at 16 - 8 or more and at H - 32 + 8 or less, blocks are 16 wide.
    assert not changed[:8].any()
    assert not changed[-8:].any()


@pytest.mark.parametrize("level", range(1, 6))
def test_pixelate_is_nearest_neighbour_at_the_rounded_up_size(level: int) -> None:
    small = [(455, 341), (402, 302), (358, 269), (292, 219), (149, 112)][level - 1]
    column, row = np.meshgrid(np.arange(512.0), np.arange(384.0))
    x = np.stack([row, column, row], axis=-1)
    ours = distortions.pixelate(x, unit(21, level), np.random.default_rng(0))
    assert len(np.unique(ours[..., 1])) == small[0]
    assert len(np.unique(ours[..., 0])) == small[1]
    nearest = Image.Resampling.NEAREST
    for channel, source in enumerate((row, column)):
        picture = Image.fromarray(source.astype(np.float32))
        pillow = np.asarray(picture.resize(small, nearest).resize((512, 384), nearest))
        # Pillow adds up steps in floating point, so centres on a border go either way there.
        assert np.abs(ours[..., channel] - pillow).max() <= 1
        assert (ours[..., channel] == pillow).mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_otsu_agrees_with_skimage(photo: Bytes, classes: int) -> None:
    from skimage.filters import threshold_multiotsu

    counts = np.bincount(photo.ravel(), minlength=256)
    centres = np.arange(256)
    expected = threshold_multiotsu(classes=classes, hist=(counts, centres))
    np.testing.assert_array_equal(distortions._otsu_cuts(counts, classes - 1), expected)


def test_otsu_is_exact_on_a_small_histogram(rng: np.random.Generator) -> None:
    from itertools import combinations

    counts = rng.integers(0, 20, 14) * rng.integers(0, 2, 14)
    bins = np.arange(14)

    def within(cuts: tuple[int, ...]) -> float:
        parts = np.split(np.arange(14), np.array(cuts) + 1)
        total = 0.0
        for part in parts:
            if counts[part].sum():
                centre = np.average(bins[part], weights=counts[part])
                total += float(np.sum(counts[part] * (bins[part] - centre) ** 2))
        return total

    for number in range(1, 6):
        best = min(within(cuts) for cuts in combinations(range(13), number))
        cuts = distortions._otsu_cuts(counts, number)
        assert (np.diff(cuts) > 0).all()
        assert within(tuple(cuts)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("level", range(1, 6))
def test_quantization_maps_classes_to_their_lower_threshold(photo: Bytes, level: int) -> None:
    number = int(unit(22, level))
    out = distort(photo, 22, level, seed=0)
    cuts = distortions._otsu_cuts(np.bincount(photo.ravel(), minlength=256), number)
    expected = np.empty(256, dtype=int)
    for value in range(256):
        below = int((cuts < value).sum())
        expected[value] = 0 if below == 0 else 255 if below == number else cuts[below]
    np.testing.assert_array_equal(out, expected[photo])
    assert len(np.unique(out)) == number + 1


def test_color_blocks_are_flat_squares_inside_the_image() -> None:
    image = grey(128, side=96)
    for seed in range(5):
        out = distort(image, 23, 1, seed=seed)
        changed = (out != image).any(axis=2)
        assert 32 * 32 <= changed.sum() <= 2 * 32 * 32
        assert len(np.unique(out[changed], axis=0)) <= 2


# --- sharpness ----------------------------------------------------------------------------------


def test_sharpening_changes_lightness_only() -> None:
    x = np.full((64, 64, 3), 0.45)
    x[:, 32:] = (0.55, 0.5, 0.5)
    before = distortions._lab(x)
    out = distortions._lab(distortions.high_sharpen(x, 1, np.random.default_rng(0)))
    np.testing.assert_allclose(out[..., 1:], before[..., 1:], atol=1e-9)
    blurred = distortions._gaussian(before[..., 0], 3.0)
    np.testing.assert_allclose(out[..., 0], 2 * before[..., 0] - blurred, atol=1e-9)
    # The window is 13 wide: columns 6 or more from the step stay as they are.
    np.testing.assert_allclose(out[:, :26], before[:, :26], atol=1e-9)
    assert abs(out[0, 26, 0] - before[0, 26, 0]) > 1e-4


# --- expected opinions --------------------------------------------------------------------------


def test_opinions_are_kadids() -> None:
    assert kadid_opinion(1, 1) == (4.6122, 0.5402)
    assert kadid_opinion(1, 4) == (1.8730, 0.6384)
    opinions = np.array([kadid_opinion(*cell) for cell in CELLS])
    assert opinions[:, 0].mean() == pytest.approx(3.033, abs=5e-4)
    assert opinions[:, 1].mean() == pytest.approx(0.754, abs=5e-4)
    assert ((opinions[:, 0] > 1) & (opinions[:, 0] < 4.65)).all()


# --- geometric transforms -----------------------------------------------------------------------


def test_shift_is_exact_and_to_the_right(photo: Bytes) -> None:
    pixels = round(0.05 * WIDTH)
    out = transform_reference(photo, "shift")
    np.testing.assert_array_equal(out[:, pixels:], photo[:, :-pixels])
    np.testing.assert_array_equal(out[:, :pixels], photo[:, :1].repeat(pixels, axis=1))


def _spot_after(kind: str, row: int, column: int) -> tuple[float, float]:
    """Where a soft white spot of a 201 x 301 image ends up, as (row, column)."""
    rows, columns = np.mgrid[0:201, 0:301]
    spot = 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
    moved = transform_reference(np.repeat(spot[..., None], 3, axis=2).astype(np.uint8), kind)
    weight = moved[..., 0] / moved[..., 0].sum()
    return float((rows * weight).sum()), float((columns * weight).sum())


def test_rotation_is_clockwise_about_the_centre() -> None:
    turn = np.radians(3)
    row, column = _spot_after("rotation", 100, 250)
    assert row == pytest.approx(100 + 100 * np.sin(turn), abs=0.05)
    assert column == pytest.approx(150 + 100 * np.cos(turn), abs=0.05)


def test_scale_enlarges_about_the_centre() -> None:
    row, column = _spot_after("scale", 60, 250)
    assert row == pytest.approx(100 - 40 * 1.05, abs=0.05)
    assert column == pytest.approx(150 + 100 * 1.05, abs=0.05)


def test_mixed_does_all_three() -> None:
    turn = np.radians(3)
    row, column = _spot_after("mixed", 100, 250)
    assert row == pytest.approx(100 + 105 * np.sin(turn), abs=0.05)
    assert column == pytest.approx(150 + 15 + 105 * np.cos(turn), abs=0.05)


@pytest.mark.parametrize("kind", GEOMETRIC)
def test_transforms_keep_shape_and_flat_images(photo: Bytes, kind: str) -> None:
    out = transform_reference(photo, kind)
    assert out.shape == photo.shape
    assert out.dtype == np.uint8
    assert rmse(out, photo) > 5
    np.testing.assert_array_equal(transform_reference(photo, kind), out)
    flat = np.full((70, 90, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(transform_reference(flat, kind), flat)


# --- cost of the import -------------------------------------------------------------------------


def test_import_brings_in_numpy_alone() -> None:
    code = (
        "import sys, iqa_checks.distortions;"
        "print(sorted({'scipy', 'skimage', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(distortions.__file__).parents[1],
        env=os.environ,
    )
    assert done.stdout.strip() == "[]"
