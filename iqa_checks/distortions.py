"""KADID-10k's 25 distortions at 5 levels, its mean opinions, and geometric transforms.

Parameters and formulas follow KADID-10k (Lin, Hosu, Saupe, QoMEX 2019) and its KADIS generator.
Inside this module an image is float64, shape (H, W, 3), sRGB, nominally 0..1; outside it is uint8.
Every distortion function takes such an image, its level parameter and a seeded generator, and may
leave 0..1: the pipeline in `distort` stretches the result, as KADID does, instead of clipping it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image as PillowImage

__all__ = [
    "DISTORTIONS",
    "GEOMETRIC",
    "Distortion",
    "Geometry",
    "distort",
    "kadid_opinion",
    "transform_reference",
]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distortion:
    """One KADID-10k distortion type.

    `levels` holds the parameter of levels 1..5, mild to severe, except that types 18 and 25 are
    ordered by signed parameter and look best at level 3. `min_side` is the smallest height and
    width, in pixels, that the distortion is defined for.
    """

    number: int
    name: str
    levels: tuple[float, float, float, float, float]
    function: Callable[[Floats, float, Generator], Floats]
    min_side: int = 1


def distort(image: Bytes, number: int, level: int, seed: int) -> Bytes:
    """Distort a uint8 (H, W, 3) sRGB image with KADID type `number` (1..25) at `level` (1..5).

    KADID's pipeline: stretch to 0..1 by the global minimum and maximum, distort in double
    precision, stretch again, round to 8 bits. The random types (3, 5, 11-15, 19, 20, 23) draw from
    a generator seeded by (seed, number, level) alone: the same call always gives the same image;
    give each content its own `seed` >= 0.
    """
    _require_rgb(image)
    distortion = DISTORTIONS.get(number)
    if distortion is None:
        raise ValueError(f"distortion number must be 1..{len(DISTORTIONS)}, got {number!r}")
    if level not in range(1, 6):
        raise ValueError(f"level must be 1..5, got {level!r}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed!r}")
    height, width = image.shape[:2]
    if min(height, width) < distortion.min_side:
        raise ValueError(
            f"{distortion.name} needs at least {distortion.min_side} pixels in height and width, "
            f"got height {height}, width {width}"
        )
    rng = np.random.default_rng([seed, number, level])
    stretched = _stretch(image / 255.0)
    return _to_bytes(_stretch(distortion.function(stretched, distortion.levels[level - 1], rng)))


def kadid_opinion(number: int, level: int) -> tuple[float, float]:
    """Expected opinion on KADID type `number` at `level`: (mean, standard deviation), scale 1..5.

    Higher is better. Both are means over the 81 contents of KADID-10k (of the mean opinion and of
    the SD of about 30 opinions per image). They are expectations for the type and level, not
    ratings of any particular picture.
    """
    opinions = _kadid_opinions()
    if (number, level) not in opinions:
        raise ValueError(
            f"KADID-10k has numbers 1..25 and levels 1..5, got number {number!r}, level {level!r}"
        )
    return opinions[number, level]


@cache
def _kadid_opinions() -> dict[tuple[int, int], tuple[float, float]]:
    import csv
    from importlib.resources import files

    table = files("iqa_checks").joinpath("data", "kadid_type_level_means.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {
        (int(row["type"]), int(row["level"])): (
            float(row["mos_mean"]),
            float(row["opinion_sd_mean"]),
        )
        for row in rows
    }


# --- geometric transforms of a reference --------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """An affine transform about the image centre: scale, then rotate clockwise, then shift right.

    `shift` is a fraction of the width (rounded to whole pixels, so a pure shift is exact),
    `degrees` is clockwise as seen on screen, `scale` > 1 enlarges the content.
    """

    shift: float = 0.0
    degrees: float = 0.0
    scale: float = 1.0


# Sizes from the DISTS paper, whose transforms the Aug-KADID lists took over.
GEOMETRIC: Mapping[str, Geometry] = MappingProxyType(
    {
        "shift": Geometry(shift=0.05),
        "rotation": Geometry(degrees=3.0),
        "scale": Geometry(scale=1.05),
        "mixed": Geometry(shift=0.05, degrees=3.0, scale=1.05),
    }
)


def transform_reference(image: Bytes, kind: str) -> Bytes:
    """Move a uint8 (H, W, 3) reference slightly, as people discount: a `kind` of `GEOMETRIC`.

    One cubic-spline affine warp, same size out. Uncovered borders repeat the edge pixels: neither
    Aug-KADID nor DISTS states its fill, and edges keep every pixel comparable without a crop.
    """
    _require_rgb(image)
    if kind not in GEOMETRIC:
        raise ValueError(f"kind must be one of {', '.join(GEOMETRIC)}, got {kind!r}")
    from scipy.ndimage import affine_transform

    geometry = GEOMETRIC[kind]
    height, width = image.shape[:2]
    turn = math.radians(geometry.degrees)
    # (row, column) coordinates with rows downward: clockwise sends +column towards +row.
    forward = geometry.scale * np.array(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )
    backward = np.linalg.inv(forward)  # scipy maps output positions to input positions
    centre = (np.array([height, width]) - 1) / 2
    moved = centre + np.array([0.0, float(_round(geometry.shift * width))])
    planes = [
        affine_transform(
            image[..., channel] / 255.0,
            backward,
            offset=centre - backward @ moved,
            order=3,
            mode="nearest",
        )
        for channel in range(3)
    ]
    return _to_bytes(np.stack(planes, axis=-1))


# --- steps that the distortions share -----------------------------------------------------------


def _require_rgb(image: Bytes) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3), got {image.shape}")
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8, got {image.dtype}")


def _stretch(x: Floats) -> Floats:
    """Map the global minimum to 0 and the maximum to 1; a constant array stays as it is."""
    low, high = float(x.min()), float(x.max())
    return x if high == low else (x - low) / (high - low)


def _to_bytes(x: Floats) -> Bytes:
    # Halves go up, as in MATLAB; numpy's rint would send them to the even neighbour.
    return np.floor(np.clip(x, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _gaussian(x: Floats, sigma: float) -> Floats:
    """Blur rows and columns; radius ceil(2 sigma) and replicated edges, as MATLAB's imgaussfilt."""
    from scipy.ndimage import gaussian_filter

    radius = math.ceil(2 * sigma)
    return cast(Floats, gaussian_filter(x, sigma, radius=radius, mode="nearest", axes=(0, 1)))


# IEC 61966-2-1 primaries and D65 white. Own conversions rather than skimage's, because that one
# clamps negative Z (with a warning) before RGB, which strong type 04 and 08 reach and MATLAB keeps.
_XYZ_FROM_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_LAB_FROM_F = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])


def _lab(x: Floats) -> Floats:
    """SRGB (H, W, 3), 0..1, to CIELAB with L in 0..100."""
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    ratio = linear @ (_XYZ_FROM_RGB / _WHITE[:, None]).T
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return cast(Floats, f @ _LAB_FROM_F.T - np.array([16.0, 0.0, 0.0]))


def _rgb(lab: Floats) -> Floats:
    """CIELAB to sRGB, clipped to 0..1."""
    f = (lab + np.array([16.0, 0.0, 0.0])) @ np.linalg.inv(_LAB_FROM_F).T
    ratio = np.where(f > 6 / 29, f * f * f, (f - 4 / 29) * 3 * (6 / 29) ** 2)
    # Clipping before the monotone transfer curve equals clipping after it and avoids NaN.
    linear = np.clip(ratio @ np.linalg.inv(_XYZ_FROM_RGB / _WHITE[:, None]).T, 0.0, 1.0)
    curved = 1.055 * np.power(linear, 1 / 2.4) - 0.055
    return cast(Floats, np.clip(np.where(linear <= 0.0031308, 12.92 * linear, curved), 0.0, 1.0))


def _parabola(x: Floats, middle: float) -> Floats:
    """Tone curve through (0, 0), (0.5, middle), (1, 1), clipped."""
    return np.clip(x * ((2 - 4 * middle) * x + (4 * middle - 1)), 0.0, 1.0)


# --- blur ---------------------------------------------------------------------------------------


def gaussian_blur(x: Floats, sigma: float, _: Generator) -> Floats:
    """01: Gaussian of `sigma` pixels on each channel."""
    return _gaussian(x, sigma)


def lens_blur(x: Floats, radius: float, _: Generator) -> Floats:
    """02: average over a disk of `radius` pixels, edges replicated."""
    from scipy.signal import fftconvolve

    margin = round(radius)
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    kernel = _disk_kernel(margin)[:, :, None]
    return cast(Floats, fftconvolve(padded, kernel, mode="valid", axes=(0, 1)))


def _disk_kernel(radius: int) -> Floats:
    """Exact share of a disk's area in each unit pixel, (2r+1, 2r+1), sum 1."""
    edges = np.arange(-radius - 0.5, radius + 1.0)
    span = np.minimum(np.abs(edges), radius)
    wide, high = np.meshgrid(span, span)

    def half_chords(t: Floats) -> Floats:  # integral of sqrt(r^2 - t^2) from 0
        area = t * np.sqrt(radius * radius - t * t) + radius * radius * np.arcsin(t / radius)
        return cast(Floats, area / 2)

    # Area of the disk inside [0, wide] x [0, high]: a rectangle until the arc comes below `high`.
    meet = np.minimum(wide, np.sqrt(radius**2 - high**2))
    corner = meet * high + half_chords(wide) - half_chords(meet)
    signed = corner * np.sign(edges)[:, None] * np.sign(edges)[None, :]
    area = np.diff(np.diff(signed, axis=0), axis=1)
    return cast(Floats, area / area.sum())


def motion_blur(x: Floats, length: float, rng: Generator) -> Floats:
    """03: average along a segment of `length` pixels at a random whole angle, edges replicated."""
    from scipy.ndimage import convolve

    kernel = _motion_kernel(length, float(rng.integers(0, 181)))
    return cast(Floats, convolve(x, kernel[:, :, None], mode="nearest"))


def _motion_kernel(length: float, degrees: float) -> Floats:
    """Antialiased segment through the centre, counter-clockwise angle, odd square, sum 1."""
    half = (length - 1) / 2
    angle = math.radians(degrees)
    reach = math.ceil(half) + 1
    offset = np.arange(-reach, reach + 1.0)
    right, up = np.meshgrid(offset, -offset)
    across = up * math.cos(angle) - right * math.sin(angle)
    along = right * math.cos(angle) + up * math.sin(angle)
    beyond = (np.hypot(right, up) >= half) & (np.abs(across) <= 1)
    distance = np.where(beyond, np.hypot(across, half - np.abs(along)), np.abs(across))
    weight = 1 - distance
    weight[weight < 1e-12] = 0.0  # rounding residue would spoil the identity at length 1
    return cast(Floats, weight / weight.sum())


# --- colour -------------------------------------------------------------------------------------


def color_diffusion(x: Floats, gain: float, _: Generator) -> Floats:
    """04: blur a and b of Lab with sigma 1.5 gain + 2 pixels, and multiply them by `gain`."""
    lab = _lab(x)
    lab[..., 1:] = gain * _gaussian(lab[..., 1:], 1.5 * gain + 2)
    return _rgb(lab)


def color_shift(x: Floats, pixels: float, rng: Generator) -> Floats:
    """05: move the green channel down and right by `pixels` in all, but only near strong edges."""
    weight = _edge_weight(x)
    direction = rng.random(2)
    down, right = (_round(step) for step in pixels * direction / np.hypot(*direction))
    green = x[..., 1]
    rows = np.maximum(np.arange(green.shape[0]) - down, 0)
    columns = np.maximum(np.arange(green.shape[1]) - right, 0)
    out = x.copy()
    out[..., 1] = weight * green[np.ix_(rows, columns)] + (1 - weight) * green
    return out


def _edge_weight(x: Floats) -> Floats:
    """Smoothed gradient magnitude of the grey image, (H, W), 0 in flat areas, 1 at strong edges."""
    down, right = np.gradient(x @ np.array([0.2989, 0.5870, 0.1140]))
    edges = _stretch(_gaussian(np.hypot(down, right), 4.0))
    edges = _stretch(np.maximum(edges, 0.1))
    low, high = np.percentile(edges, (1, 99))
    return _stretch(np.clip(edges, low, high))


def color_quantization(x: Floats, colors: float, _: Generator) -> Floats:
    """06: a palette of `colors` entries with Floyd-Steinberg dithering.

    MATLAB builds a minimum-variance palette; median cut refined by k-means is Pillow's nearest
    (20 to 55 % less squared error than median cut alone on three photographs).
    """
    from PIL import Image

    picture = _picture(x)
    # A quarter of the pixels gives as good a palette (squared error within 3 %) in a quarter of
    # the time.
    thinned = Image.fromarray(np.asarray(picture)[::2, ::2])
    palette = thinned.quantize(round(colors), method=Image.Quantize.MEDIANCUT, kmeans=1)
    # Pillow ignores `dither` unless a palette image is given, hence the second pass.
    return _floats(picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))


def color_saturation_hsv(x: Floats, gain: float, _: Generator) -> Floats:
    """07: S of HSV times `gain`, in closed form; gain < 0: the opposite hue, above 1."""
    value = x.max(axis=2, keepdims=True)
    return cast(Floats, value - gain * (value - x))


def color_saturation_lab(x: Floats, gain: float, _: Generator) -> Floats:
    """08: a and b of Lab times `gain`."""
    if gain == 1:
        return x  # exact: the trip through Lab would round some values the other way
    return _rgb(_lab(x) * np.array([1.0, gain, gain]))


# --- compression --------------------------------------------------------------------------------


def jpeg2000(x: Floats, ratio: float, _: Generator) -> Floats:
    """09: JPEG 2000 with the irreversible 9/7 wavelet at 24 / ratio bits per pixel."""
    settings = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
    return _recoded(x, "JPEG2000", settings)


def jpeg(x: Floats, quality: float, _: Generator) -> Floats:
    """10: baseline JPEG at IJG `quality` 1..100 with 4:2:0 chroma."""
    return _recoded(x, "JPEG", {"quality": round(quality), "subsampling": "4:2:0"})


def _recoded(x: Floats, codec: str, settings: Mapping[str, object]) -> Floats:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    _picture(x).save(stream, codec, **settings)
    return _floats(Image.open(stream))


def _picture(x: Floats) -> PillowImage.Image:
    from PIL import Image

    return Image.fromarray(_to_bytes(x))


def _floats(picture: PillowImage.Image) -> Floats:
    return np.asarray(picture.convert("RGB")) / 255.0


# --- noise --------------------------------------------------------------------------------------


def white_noise(x: Floats, variance: float, rng: Generator) -> Floats:
    """11: independent Gaussian noise on every channel value, clipped."""
    return np.clip(x + rng.normal(0.0, math.sqrt(variance), x.shape), 0.0, 1.0)


# ITU-R BT.601, studio range: Y in 16..235, Cb and Cr in 16..240, of 255.
_YCBCR_FROM_RGB = (
    np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    / 255.0
)
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0]) / 255.0


def white_noise_ycbcr(x: Floats, variance: float, rng: Generator) -> Floats:
    """12: Gaussian noise on Y, Cb and Cr (studio range, 0..1), clipped there and again in RGB."""
    ycbcr = white_noise(x @ _YCBCR_FROM_RGB.T + _YCBCR_OFFSET, variance, rng)
    return np.clip((ycbcr - _YCBCR_OFFSET) @ np.linalg.inv(_YCBCR_FROM_RGB).T, 0.0, 1.0)


def impulse_noise(x: Floats, density: float, rng: Generator) -> Floats:
    """13: each channel value alone turns 0 or 1, with probability density / 2 each."""
    draw = rng.random(x.shape)
    return np.where(draw < density / 2, 0.0, np.where(draw < density, 1.0, x))


def multiplicative_noise(x: Floats, variance: float, rng: Generator) -> Floats:
    """14: x + n x, n uniform with mean 0 and `variance` (MATLAB's speckle), clipped."""
    half_width = math.sqrt(3 * variance)
    return np.clip(x + x * rng.uniform(-half_width, half_width, x.shape), 0.0, 1.0)


def denoise(x: Floats, variance: float, rng: Generator) -> Floats:
    """15: Gaussian noise, clipped, then a denoiser on each channel. A stand-in, not KADID's own.

    KADID uses MATLAB's pretrained DnCNN. Here it is non-local means with the known sigma: it also
    leaves smooth areas with blotches and lost texture, but KADID's scores need not carry over.
    """
    from skimage.restoration import denoise_nl_means

    noisy = white_noise(x, variance, rng)
    sigma = math.sqrt(variance)
    planes = [
        denoise_nl_means(
            noisy[..., channel], patch_size=5, patch_distance=4, h=0.8 * sigma, sigma=sigma
        )
        for channel in range(3)
    ]
    return np.stack(planes, axis=-1)


# --- brightness ---------------------------------------------------------------------------------


def brighten(x: Floats, amount: float, _: Generator) -> Floats:
    """16: lift the middle of the tone curve by amount / 2: 2/3 on RGB, 1/3 on L of Lab."""
    middle = 0.5 + amount / 2
    lab = _lab(x)
    lab[..., 0] = 100 * _parabola(lab[..., 0] / 100, middle)
    return (2 * _parabola(x, middle) + _rgb(lab)) / 3


def darken(x: Floats, amount: float, _: Generator) -> Floats:
    """17: lower the middle of the RGB tone curve by amount / 2."""
    return _parabola(x, 0.5 - amount / 2)


def mean_shift(x: Floats, amount: float, _: Generator) -> Floats:
    """18: add a constant and clip. The pipeline's stretch turns it into gain or crushed shadows."""
    return np.clip(x + amount, 0.0, 1.0)


# --- spatial ------------------------------------------------------------------------------------


def jitter(x: Floats, sigma: float, rng: Generator) -> Floats:
    """19: five passes of bicubic resampling at positions moved by N(0, sigma^2) pixels."""
    for _ in range(5):
        down, right = rng.normal(0.0, sigma, (2, *x.shape[:2]))
        x = _resampled(x, down, right)
    return x


def _resampled(x: Floats, down: Floats, right: Floats) -> Floats:
    """Each pixel from `down`, `right` pixels away, by cubic convolution, edges replicated."""
    height, width = x.shape[:2]
    # Two more pixels for the kernel's support.
    margin = math.ceil(max(np.abs(down).max(), np.abs(right).max())) + 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    stride = width + 2 * margin
    flat = padded.reshape(-1, 3)
    row, column = np.floor(down), np.floor(right)
    base = (row + np.arange(height)[:, None] + margin) * stride
    first = (base + column + np.arange(width) + margin).astype(np.intp).ravel()
    row_weights = _cubic_weights((down - row).ravel())
    column_weights = _cubic_weights((right - column).ravel())
    out = np.zeros((height * width, 3))
    for i in range(4):
        line = np.zeros_like(out)
        for j in range(4):
            taken = flat.take(first + ((i - 1) * stride + j - 1), axis=0)
            taken *= column_weights[j][:, None]
            line += taken
        line *= row_weights[i][:, None]
        out += line
    return out.reshape(x.shape)


def _cubic_weights(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Keys' cubic convolution (a = -0.5) at offsets -1, 0, 1, 2 for fraction t in 0..1."""
    return (
        ((2 - t) * t - 1) * t / 2,
        (3 * t - 5) * t * t / 2 + 1,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )


def non_eccentricity_patch(x: Floats, patches: float, rng: Generator) -> Floats:
    """20: copy a 16 x 16 block to a place up to 8 pixels away, `patches` times in a row."""
    size, margin = 16, 16
    out = x.copy()
    height, width = x.shape[:2]
    for _ in range(round(patches)):
        row = int(rng.integers(margin, height - 2 * size + 1))
        column = int(rng.integers(margin, width - 2 * size + 1))
        down, right = (_round(step) for step in (rng.random(2) - 0.5) * size)
        block = out[row : row + size, column : column + size].copy()  # the two may overlap
        out[row + down : row + down + size, column + right : column + right + size] = block
    return out


def pixelate(x: Floats, amount: float, _: Generator) -> Floats:
    """21: nearest-neighbour down by 0.95 - amount^0.6, sizes rounded up, and back to full size."""
    scale = 0.95 - math.pow(amount, 0.6)
    rows, columns = (_coarse_index(side, math.ceil(scale * side)) for side in x.shape[:2])
    return x[np.ix_(rows, columns)]


def _coarse_index(side: int, small: int) -> NDArray[np.intp]:
    """Where each pixel of a line of `side` comes from after a trip through `small` pixels."""
    # Pixel centres in whole numbers: in floats, centres that fall on a border go either way.
    down = (2 * np.arange(small) + 1) * side // (2 * small)
    up = (2 * np.arange(side) + 1) * small // (2 * side)
    return down[up]


def quantization(x: Floats, thresholds: float, _: Generator) -> Floats:
    """22: one scale of thresholds + 1 values for all channels, cut by multi-level Otsu."""
    counts = np.bincount(_to_bytes(x).ravel(), minlength=256)
    cuts = _otsu_cuts(counts, round(thresholds)) / 255.0
    # Values in (t(k-1), t(k)] become t(k), except that the lowest class is 0 and the highest 1.
    values = np.concatenate(([0.0], cuts[1:], [1.0]))
    return cast(Floats, values[np.searchsorted(cuts, x, side="left")])


def _otsu_cuts(counts: NDArray[np.intp], number: int) -> NDArray[np.intp]:
    """Find the `number` cuts (last bin of each lower class) with most between-class variance.

    Exact, by dynamic programming over the bins of the histogram `counts`.
    """
    bins = np.arange(len(counts))
    weight = np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64)))
    moment = np.concatenate(([0.0], np.cumsum(counts * bins, dtype=np.float64)))
    # gain[a, b]: share of bins a..b-1 taken as one class; classes hold at least one bin.
    class_weight = weight[None, :] - weight[:, None]
    class_moment = moment[None, :] - moment[:, None]
    gain = np.full(class_weight.shape, -np.inf)
    np.divide(class_moment**2, class_weight, out=gain, where=class_weight > 0)
    empty = (class_weight == 0) & np.triu(np.ones(gain.shape, dtype=bool), 1)
    gain[empty] = 0.0
    best = gain[0]
    starts = []
    for _ in range(number):
        candidates = best[:, None] + gain
        start = candidates.argmax(axis=0)  # the lowest of equal cuts, as skimage chooses
        best = candidates[start, np.arange(len(best))]
        starts.append(start)
    cuts = []
    end = len(counts)
    for start in reversed(starts):
        end = int(start[end])
        cuts.append(end - 1)
    return np.array(cuts[::-1], dtype=np.intp)


def color_block(x: Floats, blocks: float, rng: Generator) -> Floats:
    """23: `blocks` opaque 32 x 32 squares of random colour at random places."""
    size = 32
    out = x.copy()
    height, width = x.shape[:2]
    for _ in range(round(blocks)):
        row = int(rng.integers(0, height - size + 1))
        column = int(rng.integers(0, width - size + 1))
        out[row : row + size, column : column + size] = rng.random(3)
    return out


# --- sharpness and contrast ---------------------------------------------------------------------


def high_sharpen(x: Floats, amount: float, _: Generator) -> Floats:
    """24: unsharp mask on L of Lab, sigma 3 pixels, no threshold."""
    lab = _lab(x)
    light = lab[..., 0]
    lab[..., 0] = light + amount * (light - _gaussian(light, 3.0))
    return _rgb(lab)


def contrast_change(x: Floats, amount: float, _: Generator) -> Floats:
    """25: odd cubic tone curve through (0, 0), (0.3, 0.25 - amount / 4), (0.5, 0.5), (1, 1).

    It equals MATLAB's not-a-knot spline on those points and their mirror images. The identity
    would be amount -0.2, not 0.
    """
    cubic = (0.2 - (0.25 + amount / 4)) / 0.042
    u = x - 0.5
    return np.clip(0.5 + u * ((1 - cubic / 4) + cubic * u * u), 0.0, 1.0)


DISTORTIONS: Mapping[int, Distortion] = MappingProxyType(
    {
        distortion.number: distortion
        for distortion in (
            Distortion(1, "gaussian-blur", (0.1, 0.5, 1, 2, 5), gaussian_blur),
            Distortion(2, "lens-blur", (1, 2, 4, 6, 8), lens_blur),
            Distortion(3, "motion-blur", (1, 2, 4, 6, 10), motion_blur),
            Distortion(4, "color-diffusion", (1, 3, 6, 8, 12), color_diffusion),
            Distortion(5, "color-shift", (1, 3, 6, 8, 12), color_shift, min_side=2),
            Distortion(6, "color-quantization", (64, 48, 32, 16, 8), color_quantization),
            Distortion(7, "color-saturation-1", (0.4, 0.2, 0.1, 0, -0.4), color_saturation_hsv),
            Distortion(8, "color-saturation-2", (1, 2, 3, 6, 9), color_saturation_lab),
            Distortion(9, "jpeg2000", (16, 32, 45, 120, 400), jpeg2000),
            Distortion(10, "jpeg", (43, 36, 24, 7, 4), jpeg),
            Distortion(11, "white-noise", (0.001, 0.002, 0.003, 0.005, 0.01), white_noise),
            Distortion(
                12,
                "white-noise-in-color-component",
                (0.0001, 0.0005, 0.001, 0.002, 0.003),
                white_noise_ycbcr,
            ),
            Distortion(13, "impulse-noise", (0.001, 0.005, 0.01, 0.02, 0.03), impulse_noise),
            Distortion(
                14, "multiplicative-noise", (0.001, 0.005, 0.01, 0.02, 0.05), multiplicative_noise
            ),
            Distortion(15, "denoise", (0.01, 0.03, 0.05, 0.1, 0.15), denoise),
            Distortion(16, "brighten", (0.1, 0.2, 0.4, 0.7, 1.1), brighten),
            Distortion(17, "darken", (0.05, 0.1, 0.2, 0.4, 0.8), darken),
            Distortion(18, "mean-shift", (0.15, 0.08, 0, -0.08, -0.15), mean_shift),
            Distortion(19, "jitter", (0.05, 0.1, 0.2, 0.5, 1), jitter),
            Distortion(
                20,
                "non-eccentricity-patch",
                (20, 40, 60, 80, 100),
                non_eccentricity_patch,
                min_side=48,
            ),
            Distortion(21, "pixelate", (0.01, 0.05, 0.1, 0.2, 0.5), pixelate),
            Distortion(22, "quantization", (20, 16, 13, 10, 7), quantization),
            Distortion(23, "color-block", (2, 4, 6, 8, 10), color_block, min_side=32),
            Distortion(24, "high-sharpen", (1, 2, 3, 6, 12), high_sharpen),
            Distortion(25, "contrast-change", (0.3, 0.15, 0, -0.4, -0.6), contrast_change),
        )
    }
)
