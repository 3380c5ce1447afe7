"""The image statistics that simulated observers see by: simple, fast, and documented as such.

All take RGB in [0, 1], shape (H, W, 3), and return points on 0..100, higher = better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_SHORT_SIDE = 384  # larger pictures are averaged down to about this before they are compared

# Full reference: 100 exp(-sum). The chroma and level weights are round numbers, the best of six
# pairs tried on LIVE, the AVT stills and KADID-10k's expected opinions; 6 on structure spreads real
# distortions over most of the range.
_STRUCTURE, _CHROMA, _LEVEL = 6.0, 3.0, 1.0

# No reference: 100 exp(-sum of weight x defect). Weights: non-negative least squares (soft L1) of
# that to (opinion - 1) / 3.65, KADID-10k's expected opinions for the ten built-in distortion types
# at five levels and for none, on rocket, flower and, at about half weight, seven other pictures of
# scikit-image (grey ones without the colour types and "pale"). The built-in test contents took no
# part in that. Thresholds (in `defects`) were set by hand at about where undistorted photographs
# end, out of some thirty settings whose SRCC on test contents, LIVE and AVT was seen.
# "small" is not from the fit, whose pictures are of one size: it was set by hand on the AVT stills,
# which were shown at native size. Their order (SRCC 0.87) is mostly size: 0.18 without "small",
# 0.89 by size alone. LIVE (0.85) and the built-in contents (0.80) have no picture it applies to.
_WEIGHTS = {
    "blur": 7.65,
    "noise": 0.16,
    "blocks": 0.60,
    "repeats": 0.98,
    "specks": 0.28,
    "pale": 0.77,
    "vivid": 1.21,
    "bright": 1.56,
    "dark": 0.39,
    "small": 1.0,
}


def full_reference_quality(reference: NDArray[np.float32], test: NDArray[np.float32]) -> float:
    """Gradient-magnitude similarity deviation (Xue et al. 2014), chroma and level differences.

    100 exp(-(6 GMSD + 3 mean chroma difference + 1 difference of mean luminance)); GMSD as in the
    paper: Prewitt gradients of luminance at half size.

    A test picture of another size is resized to the reference's (bicubic), as a viewer would
    scale it to the screen.
    """
    if reference.shape != test.shape:
        test = _resized(test, reference.shape[0], reference.shape[1])
    reference, test = _viewed(reference), _viewed(test)
    luma_r, luma_t = reference @ _LUMA, test @ _LUMA
    gradient_r, gradient_t = _prewitt(_halved(luma_r)), _prewitt(_halved(luma_t))
    constant = 0.0026  # 170 / 255**2, the paper's constant on [0, 1]
    likeness = (2 * gradient_r * gradient_t + constant) / (gradient_r**2 + gradient_t**2 + constant)
    chroma = np.abs(_chroma(reference) - _chroma(test)).mean()
    level = abs(float(luma_r.mean() - luma_t.mean()))
    return float(100 * np.exp(-_STRUCTURE * likeness.std() - _CHROMA * chroma - _LEVEL * level))


def no_reference_quality(test: NDArray[np.float32]) -> float:
    """100 exp(-sum of weighted defects): each is 0 in an ordinary photograph and grows when seen.

    `defects` says what they are. A picture with nothing in it comes out near 0: it has no edges.
    """
    found = defects(test)
    return float(100 * np.exp(-sum(_WEIGHTS[name] * size for name, size in found.items())))


def defects(image: NDArray[np.float32]) -> dict[str, float]:
    """What is wrong with a picture, by name; each is at least 0.

    - blur: how far the steepest step across the strongest edges falls short of 0.4 of their height
    - noise: doublings of the noise in the calmer blocks above a deviation of about 2 of 255
    - blocks: doublings of the steps between 8 x 8 blocks over the steps within, beyond 0.25
    - repeats: square root of the share of rows and columns that repeat their neighbour
    - specks: doublings of the share of channel values that stand out alone, above 1.5 per mille
    - pale: shortfall of the mean of (max - min of R, G, B) from 0.12, as a share
    - vivid: share of coloured pixels with a channel at its limit, beyond 0.2
    - bright: lower quartile of luminance, beyond 0.4
    - dark: shortfall of the lower quartile of luminance from 0.06, as a share
    - small: halvings of the short side below 384 pixels
    """
    small = np.log2(_SHORT_SIDE / min(image.shape[:2]))
    image = _padded(_viewed(image, 2 * _SHORT_SIDE))
    luma = image @ _LUMA
    shade = float(np.quantile(luma, 0.25))
    high, low = image.max(axis=2), image.min(axis=2)
    colour = high - low
    vivid = (((low < 0.01) | (high > 0.99)) & (colour > 0.2)).mean()
    found = {
        "blur": 0.4 - _edge_sharpness(luma),
        "noise": np.log2(255 * _calm_noise(luma) + 0.25) - 1.2,
        "blocks": _blockiness(luma) - 0.25,
        "repeats": np.sqrt(_repeated_lines(luma)),
        "specks": np.log2(1000 * _lone_values(image) + 0.5) - 1.0,
        "pale": 1 - float(colour.mean()) / 0.12,
        "vivid": vivid - 0.2,
        "bright": shade - 0.4,
        "dark": 1 - shade / 0.06,
        "small": small,
    }
    return {name: max(0.0, float(size)) for name, size in found.items()}


def color_likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean CIEDE2000 between two photographs of a scene, seen coarsely so that framing is moot."""
    from skimage import color

    difference: Any = color.deltaE_ciede2000  # untyped in some versions
    size = 64
    a, b = (color.rgb2lab(_resized(_viewed(image), size, size)) for image in (first, second))
    return float(100 * np.exp(-difference(a, b).mean() / 12))


def _viewed(image: NDArray[np.float32], short_side: int = _SHORT_SIDE) -> NDArray[np.float32]:
    """Average over whole pixels so that the short side is about `short_side` at most."""
    step = max(1, round(min(image.shape[:2]) / short_side))
    height, width = (side // step * step for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _padded(image: NDArray[np.float32], least: int = 17) -> NDArray[np.float32]:
    """Continue the edge pixels of a tiny picture, so that every statistic has data."""
    more = [(0, max(0, least - side)) for side in image.shape[:2]]
    return np.pad(image, [*more, (0, 0)], mode="edge") if max(more)[1] else image


def _resized(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    import PIL.Image

    pixels = PIL.Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    scaled = pixels.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(scaled, dtype=np.float32) / np.float32(255)


def _chroma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    luma = image @ _LUMA
    return np.stack([image[..., 2] - luma, image[..., 0] - luma], axis=-1)


def _halved(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (side // 2 for side in luma.shape)
    if min(height, width) == 0:
        return luma
    cut = luma[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float32)


def _prewitt(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(luma, 1, mode="edge")
    down = (padded[2:] - padded[:-2]) / 3
    right = (padded[:, 2:] - padded[:, :-2]) / 3
    dy = down[:, :-2] + down[:, 1:-1] + down[:, 2:]
    dx = right[:-2] + right[1:-1] + right[2:]
    return np.asarray(np.hypot(dy, dx), dtype=np.float32)


def _steps(luma: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Absolute differences of neighbours along rows, and along columns (transposed)."""
    return np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma.T, axis=1))


def _edge_sharpness(luma: NDArray[np.float32]) -> float:
    """Steepest step over height, where the range within 9 pixels is in the top tenth."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    shares = []
    for lines, steps in zip((luma, np.ascontiguousarray(luma.T)), _steps(luma), strict=True):
        height = (maximum_filter1d(lines, 9, axis=1) - minimum_filter1d(lines, 9, axis=1))[:, :-1]
        edge = height >= max(0.02, float(np.quantile(height[::2], 0.9)))
        steepest = maximum_filter1d(steps, 8, axis=1)
        shares.append((steepest[edge] / height[edge]).mean() if edge.any() else 0.0)
    return float(np.mean(shares))


def _calm_noise(luma: NDArray[np.float32]) -> float:
    """Noise deviation (Immerkaer 1996) in 8 x 8 blocks: lower quartile, dead blocks left out."""
    along = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]
    both = np.abs(along[:-2] - 2 * along[1:-1] + along[2:])
    noise = _blocks(both, 8) * (np.sqrt(np.pi / 2) / 6)
    alive = noise[noise > 0.0002]
    return float(np.quantile(alive, 0.25)) if alive.size else 0.0


def _blockiness(luma: NDArray[np.float32]) -> float:
    """Doublings of the mean step at multiples of 8 pixels over the median of the 8 positions."""
    ratios = []
    for steps in _steps(luma):
        profile = np.minimum(steps, 0.1).mean(axis=0)  # strong edges of the scene weigh no more
        phases = profile[: len(profile) // 8 * 8].reshape(-1, 8).mean(axis=0) + 0.0005
        ratios.append(np.log2(phases[7] / np.median(phases)))
    return float(np.mean(ratios))


def _repeated_lines(luma: NDArray[np.float32]) -> float:
    return float(np.mean([(steps.mean(axis=0) < 0.3 / 255).mean() for steps in _steps(luma)]))


def _lone_values(image: NDArray[np.float32]) -> float:
    """Share of channel values more than 0.2 above, or below, all four neighbours."""
    centre = image[1:-1, 1:-1]
    up, down, left, right = image[:-2, 1:-1], image[2:, 1:-1], image[1:-1, :-2], image[1:-1, 2:]
    most = np.maximum(np.maximum(up, down), np.maximum(left, right))
    least = np.minimum(np.minimum(up, down), np.minimum(left, right))
    return float(((centre - most > 0.2) | (least - centre > 0.2)).mean())


def _blocks(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Mean of each whole block."""
    height, width = (n // side for n in values.shape)
    cut = values[: height * side, : width * side].reshape(height, side, width, side)
    return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float32)
