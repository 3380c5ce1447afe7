"""Images made from a set's own: lossless PNG copies of BMP files, Aug-KADID's references.

Both are made once into the cache, named by the SHA-256 of what they are made from, with a record of
their own hash: a file that was changed or cut off is noticed and made again. Two runs that make the
same one at once do not collide.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

from iqa_checks.errors import StimulusError
from iqa_checks.stimuli import MAX_BYTES, MAX_PIXELS

AUGMENTED_VERSION = 1  # of the transforms: other pixels get another folder


def sendable_copy(path: Path, cache_dir: Path, *, where: str) -> Path:
    """``path``, or for a BMP its pixel-identical PNG in the cache: endpoints decode no BMP."""
    if path.suffix.casefold() != ".bmp":
        return path
    data = _bytes(path, where)
    target = cache_dir / "png" / f"{hashlib.sha256(data).hexdigest()[:32]}.png"
    return _cached(target, lambda: _as_png(data, path, where))


def augmented_reference(path: Path, cache_dir: Path, *, where: str) -> Path:
    """``Irr_aug.png`` made from ``Irr.png``: shifted, rotated, enlarged or all three.

    The authors' generator is unpublished and their lists do not say which transform a reference
    got; the four of the DISTS paper are taken in turn over the content number (I01 shift, I02
    rotation, I03 scale, I04 all three, and so on), so that every selection mixes them.
    """
    from iqa_checks.distortions import GEOMETRIC, transform_reference

    if path.stem.endswith("_aug"):
        return path
    data = _bytes(path, where)
    digits = re.sub(r"\D", "", path.stem) or "1"
    kind = list(GEOMETRIC)[(int(digits) - 1) % len(GEOMETRIC)]
    folder = f"aug-kadid-v{AUGMENTED_VERSION}-{hashlib.sha256(data).hexdigest()[:16]}"
    target = cache_dir / folder / f"{path.stem}_aug.png"

    def make() -> bytes:
        import numpy as np

        pixels = np.array(_opened(data, path, where))
        return _png(transform_reference(pixels, kind))

    return _cached(target, make)


def _cached(target: Path, make: Callable[[], bytes]) -> Path:
    from iqa_checks.builtin import write_atomically

    record = target.with_suffix(".sha256")
    try:
        if hashlib.sha256(target.read_bytes()).hexdigest() == record.read_text().strip():
            return target
    except (OSError, ValueError):
        pass  # absent or unreadable: make it
    data = make()
    write_atomically(target, data)
    write_atomically(record, hashlib.sha256(data).hexdigest().encode())
    return target


def _bytes(path: Path, where: str) -> bytes:
    try:
        if path.stat().st_size <= MAX_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise StimulusError(f"{where}: image {path} cannot be read ({error.strerror})") from None
    raise StimulusError(f"{where}: {path} has over {MAX_BYTES // 2**20} MiB; give a smaller file")


def _as_png(data: bytes, path: Path, where: str) -> bytes:
    import numpy as np

    return _png(np.array(_opened(data, path, where)))


def _opened(data: bytes, path: Path, where: str):  # type: ignore[no-untyped-def]
    """The picture as 8-bit RGB, decoded completely."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise StimulusError(f"{where}: {path} has over {MAX_PIXELS:,} pixels")
            return image.convert("RGB")
    except StimulusError:
        raise
    except Exception as error:  # Pillow raises a dozen types on damaged input
        raise StimulusError(
            f"{where}: {path} is not a whole image ({error}); get it again"
        ) from None


def _png(pixels) -> bytes:  # type: ignore[no-untyped-def]
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
