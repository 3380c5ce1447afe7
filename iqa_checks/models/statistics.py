"""The image statistics that simulated observers see by: simple, fast, and documented as such.

All take RGB in [0, 1], shape (H, W, 3), and return points on 0..100, higher = better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_SHORT_SIDE = 384  # larger pictures are averaged down to about this before they are compared


def full_reference_quality(reference: NDArray[np.float32], test: NDArray[np.float32]) -> float:
    """Gradient-magnitude similarity deviation (Xue et al. 2014) and a chroma difference.

    A test picture of another size is resized to the reference's (bicubic), as a viewer would
    scale it to the screen.
    """
    if reference.shape != test.shape:
        test = _resized(test, reference.shape[0], reference.shape[1])
    reference, test = _viewed(reference), _viewed(test)
    gradient_r, gradient_t = _gradient(reference @ _LUMA), _gradient(test @ _LUMA)
    constant = 0.0026  # 170 / 255**2, the paper's constant on [0, 1]
    likeness = (2 * gradient_r * gradient_t + constant) / (gradient_r**2 + gradient_t**2 + constant)
    chroma = np.abs(_chroma(reference) - _chroma(test)).mean()
    level = abs(float((reference @ _LUMA).mean() - (test @ _LUMA).mean()))
    return float(100 * np.exp(-6.0 * likeness.std() - 6.0 * chroma - 1.0 * level))


def no_reference_quality(test: NDArray[np.float32]) -> float:
    """Sharpness of the strongest edges less noise in the flattest blocks.

    Both are taken from 16 x 16 blocks of luminance: an undistorted photograph has blocks of nearly
    no activity and blocks of strong edges.
    """
    luma = test @ _LUMA
    fine = np.abs(_laplacian(luma))
    coarse = _gradient(luma)
    flat = np.quantile(_blocks(fine), 0.1)
    edges = np.quantile(_blocks(fine), 0.9) / (np.quantile(_blocks(coarse), 0.9) + 1e-3)
    sharp = float(np.clip(edges / 0.8, 0, 1))
    return float(100 * sharp * np.exp(-25.0 * flat))


def color_likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean CIEDE2000 between two photographs of a scene, seen coarsely so that framing is moot."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    size = 64
    a, b = (_resized(_viewed(image), size, size) for image in (first, second))
    return float(100 * np.exp(-deltaE_ciede2000(rgb2lab(a), rgb2lab(b)).mean() / 12))


def _viewed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average over whole pixels so that the short side is about 384."""
    step = max(1, round(min(image.shape[:2]) / _SHORT_SIDE))
    height, width = (side // step * step for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _resized(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    import PIL.Image

    pixels = PIL.Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    scaled = pixels.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(scaled, dtype=np.float32) / 255


def _chroma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    luma = image @ _LUMA
    return np.stack([image[..., 2] - luma, image[..., 0] - luma], axis=-1)


def _gradient(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    dy, dx = np.gradient(luma)
    return np.asarray(np.hypot(dy, dx), dtype=np.float32)


def _laplacian(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(
        4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:],
        dtype=np.float32,
    )


def _blocks(values: NDArray[np.float32], side: int = 16) -> NDArray[np.float32]:
    """Mean of each whole block; pictures smaller than a block are one block."""
    height, width = (max(1, n // side) for n in values.shape)
    cut = values[: height * side, : width * side]
    if min(values.shape) < side:
        return np.array([values.mean()], dtype=np.float32)
    return np.asarray(cut.reshape(height, side, width, side).mean(axis=(1, 3)), dtype=np.float32)
