"""What an image file may be, beyond being whole: the rules, and a quick check of many files.

A model is sent the original bytes. So a file is refused where what it shows depends on the decoder,
and what people saw when they rated it cannot be told:

================  ==============================================================================
8-bit RGB, grey   sent as it is (decoders agree on grey), palettes too
16-bit grey       refused: some decoders clip it to white instead of scaling it to 8 bits
16-bit color      sent as it is and noted: decoders keep the upper 8 bits
CMYK, YCCK, Lab   refused: decoders disagree on inversion and profile
alpha             refused unless every pixel is opaque: the background is the decoder's choice
animated          refused: which frame is judged is undefined
EXIF-rotated      sent as it is and noted; refused where an image and its reference differ in it,
                  because some endpoints turn the picture and others do not
zero bytes        refused
over 64 MiB, or   refused before decoding (`iqa_checks.stimuli.read_image`)
100 megapixels
BMP               of a published set: sent as a pixel-identical PNG, and noted; elsewhere refused
other formats     refused
================  ==============================================================================

PNG, JPEG, WebP and GIF are what chat endpoints document that they decode.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.errors import StimulusError
from iqa_checks.stimuli import MAX_BYTES, MAX_PIXELS, SENDABLE, Stimulus

if TYPE_CHECKING:
    import PIL.Image

ORIENTATION = 0x0112  # the EXIF tag; 1 or absent = as stored
_PLAIN_MODES = {"1", "L", "P", "RGB"}
_ALPHA_MODES = {"LA", "RGBA", "PA", "La", "RGBa"}
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "GIF": b"\x3b"}


def check_presentation(stimuli: Iterable[Stimulus]) -> tuple[str, ...]:
    """Apply the rules above to verified stimuli; returns the notes that a set must carry.

    Raises `StimulusError` for the first image that breaks a rule.
    """
    seen: dict[Path, tuple[int, bool]] = {}
    for stimulus in stimuli:
        paths = [path for path in (stimulus.path, stimulus.reference) if path is not None]
        for path in paths:
            if path not in seen:
                seen[path] = _presentable(path)
        if len({seen[path][0] for path in paths}) > 1:
            raise StimulusError(
                f"{stimulus.path} and its reference {stimulus.reference} carry different EXIF "
                "orientations: some endpoints would turn one of them; store both upright"
            )
    turned = sum(orientation != 1 for orientation, _ in seen.values())
    deep = sum(sixteen for _, sixteen in seen.values())
    notes = (
        (turned, f"{turned} images carry an EXIF rotation and are sent as they are"),
        (deep, f"{deep} images have 16 bits per channel and are sent as they are"),
    )
    return tuple(note for count, note in notes if count)


def quick_problem(path: Path) -> str:
    """What is wrong with a file, from its header and its last bytes; '' where nothing shows.

    Costs two small reads, so that 11,000 files take seconds: it finds files that are empty, cut
    off, of another format, huge, or break a rule above by their header. It does not find a flipped
    bit, nor transparency that only pixels show: `deep_problem` does.
    """
    return _problem(path, deep=False)


def deep_problem(path: Path) -> str:
    """As `quick_problem`, and the whole image is decoded."""
    return _problem(path, deep=True)


def _problem(path: Path, *, deep: bool) -> str:
    import PIL.Image

    try:
        size = os.stat(path).st_size
        if not 0 < size <= MAX_BYTES:
            return "empty (0 bytes)" if not size else f"{size / 2**20:.0f} MiB"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width} x {image.height} pixels"
                wrong = _rule_broken(image, look_at_pixels=deep)
                if deep and not wrong:
                    image.load()
                return wrong or _cut_off(path, image.format or "", size)
    except PIL.Image.DecompressionBombError:
        return f"far more than {MAX_PIXELS:,} pixels"
    except PIL.UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # Pillow raises a dozen types on damaged input
        return f"unreadable ({error})"


def _cut_off(path: Path, kind: str, size: int) -> str:
    """A whole file ends as its format does; padding after the end is common, so look near it."""
    if kind == "BMP":
        with path.open("rb") as file:
            declared = int.from_bytes(file.read(6)[2:], "little")
        return "" if size >= declared else f"cut off at {size} of {declared} bytes"
    mark = _ENDS.get(kind)
    if mark is None:
        return ""
    with path.open("rb") as file:
        file.seek(max(0, size - 4096))
        return "" if mark in file.read() else f"cut off: a whole {kind} file ends with its end mark"


def _presentable(path: Path) -> tuple[int, bool]:
    """EXIF orientation (1..8), and whether it has 16 bits per channel; `StimulusError` if unfit."""
    import PIL.Image

    with PIL.Image.open(path) as image:
        sixteen = _sixteen_bits(image)
        wrong = _rule_broken(image, look_at_pixels=True)
        told = image.format != "PNG" or "exif" in image.info  # else Pillow decodes to look for it
        orientation = image.getexif().get(ORIENTATION, 1) if told else 1
    if wrong:
        raise StimulusError(f"{path} is {wrong}; what a model would see is undefined: convert it")
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return orientation if known else 1, sixteen


def _rule_broken(image: PIL.Image.Image, *, look_at_pixels: bool) -> str:
    """Which rule an opened image breaks, '' for none."""
    if image.format not in {*SENDABLE, "BMP"}:
        return f"a {image.format} file"
    if getattr(image, "n_frames", 1) > 1:
        return f"animated ({getattr(image, 'n_frames', 0)} frames)"
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return "partly transparent" if look_at_pixels and _transparent(image) else ""
    if image.mode.startswith("I") or image.mode == "F":
        return "a grey image of 16 bits or more"
    return "" if image.mode in _PLAIN_MODES else f"an image in {image.mode} colors"


def _transparent(image: PIL.Image.Image) -> bool:
    low = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(low, (int, float)) and low < 255


def _sixteen_bits(image: PIL.Image.Image) -> bool:
    """Pillow opens 16-bit RGB PNG as 8-bit RGB: the raw mode tells."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    return any("16" in str(tile[3]) for tile in getattr(image, "tile", []) if len(tile) > 3)
