"""Classic metrics on numpy, scipy and scikit-image: no weights, no torch, permissive licences.

All take uint8 RGB arrays of shape (H, W, 3), those with a reference as (distorted, reference), and
return the metric's own value, not oriented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_checks.errors import UsageError

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

PSNR_OF_EQUALS = 100.0  # dB: equal images have none, and selection needs a number
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_GMSD_CONSTANT = 170.0
_LUMA_WEIGHTS = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])


def luma(pixels: Pixels) -> Plane:
    """BT.601 luma in 0..255, shape (H, W)."""
    plane: Plane = pixels.astype(np.float64) @ _LUMA_WEIGHTS
    return plane


def rounded_luma(pixels: Pixels) -> Plane:
    """Luma as MATLAB's rgb2gray of uint8: the original code of SSIM and GMSD is applied to it."""
    plane: Plane = np.floor(luma(pixels) + 0.5)
    return plane


def psnr(distorted: Pixels, reference: Pixels) -> float:
    """10 log10(255^2 / MSE) in dB over all RGB values, at most 100."""
    error = np.mean((distorted.astype(np.float64) - reference.astype(np.float64)) ** 2)
    if error == 0:
        return PSNR_OF_EQUALS
    return float(min(PSNR_OF_EQUALS, 10 * np.log10(255.0**2 / error)))


def ssim(distorted: Pixels, reference: Pixels) -> float:
    """Wang et al. 2004: Gaussian window of 11, sigma 1.5, on luma; in -1..1, 1 for equal."""
    from skimage import metrics

    compare: Any = metrics.structural_similarity
    _at_least(11, distorted, "ssim")
    return float(
        compare(
            rounded_luma(distorted),
            rounded_luma(reference),
            data_range=255.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ms_ssim(distorted: Pixels, reference: Pixels) -> float:
    """Wang et al. 2003: five scales on luma, contrast at four and SSIM at the last; 0..1."""
    _at_least(11 * 2 ** (len(MS_SSIM_WEIGHTS) - 1), distorted, "ms_ssim")
    first, second = rounded_luma(distorted), rounded_luma(reference)
    product = 1.0
    for k, weight in enumerate(MS_SSIM_WEIGHTS):
        whole, contrast = _ssim_means(first, second)
        factor = whole if k == len(MS_SSIM_WEIGHTS) - 1 else contrast
        product *= max(factor, 0.0) ** weight  # negative covariance has no real power
        first, second = _halved(first), _halved(second)
    return product


def gmsd(distorted: Pixels, reference: Pixels) -> float:
    """Xue et al. 2014: SD of gradient magnitude similarity on halved luma; 0 for equal."""
    first, second = (_gradient(_halved(rounded_luma(p))) for p in (distorted, reference))
    similarity = (2 * first * second + _GMSD_CONSTANT) / (first**2 + second**2 + _GMSD_CONSTANT)
    return float(np.std(similarity))


def ciede2000(distorted: Pixels, reference: Pixels) -> float:
    """Mean CIEDE2000 difference of corresponding pixels, sRGB with white point D65."""
    from skimage import color

    difference: Any = color.deltaE_ciede2000
    return float(np.mean(difference(color.rgb2lab(reference), color.rgb2lab(distorted))))


def blur_effect(pixels: Pixels) -> float:
    """Crete et al. 2007: 0 for no blur, 1 for the most."""
    from skimage import measure

    measured: Any = measure.blur_effect
    _at_least(12, pixels, "blur_effect")
    return float(measured(luma(pixels) / 255.0, h_size=11))


def noise_sigma(pixels: Pixels) -> float:
    """Immerkaer 1996: SD of white noise in luma, 0..255, from a Laplacian difference mask."""
    from scipy.ndimage import convolve

    _at_least(3, pixels, "noise_sigma")
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
    response = convolve(luma(pixels), mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.mean(np.abs(response)))


WITH_REFERENCE: dict[str, Callable[[Pixels, Pixels], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "gmsd": gmsd,
    "ciede2000": ciede2000,
}
WITHOUT_REFERENCE: dict[str, Callable[[Pixels], float]] = {
    "blur_effect": blur_effect,
    "noise_sigma": noise_sigma,
}


def _ssim_means(first: Plane, second: Plane) -> tuple[float, float]:
    """Means over the valid region of SSIM and of its contrast-structure factor."""
    from scipy.ndimage import gaussian_filter

    def smooth(plane: Plane) -> Plane:
        smoothed: Plane = gaussian_filter(plane, 1.5, radius=5)
        return smoothed[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = smooth(first), smooth(second)
    variance1 = smooth(first**2) - mean1**2
    variance2 = smooth(second**2) - mean2**2
    covariance = smooth(first * second) - mean1 * mean2
    contrast = (2 * covariance + c2) / (variance1 + variance2 + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return float(np.mean(luminance * contrast)), float(np.mean(contrast))


def _halved(plane: Plane) -> Plane:
    """Means of 2 x 2 blocks; an odd last row or column is left out."""
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    blocks = plane[:height, :width].reshape(height // 2, 2, width // 2, 2)
    means: Plane = blocks.mean(axis=(1, 3))
    return means


def _gradient(plane: Plane) -> Plane:
    """Magnitude of the Prewitt gradient divided by 3, zeros outside."""
    from scipy.ndimage import convolve

    across = np.array([[1, 0, -1]] * 3, dtype=np.float64) / 3
    horizontal = convolve(plane, across, mode="constant")
    vertical = convolve(plane, across.T, mode="constant")
    magnitude: Plane = np.hypot(horizontal, vertical)
    return magnitude


def _at_least(side: int, pixels: Pixels, metric: str) -> None:
    if min(pixels.shape[:2]) < side:
        raise UsageError(
            f"{metric} needs images of at least {side} pixels on the shorter side, got "
            f"{pixels.shape[1]} x {pixels.shape[0]}; take another expert"
        )
