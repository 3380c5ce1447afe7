"""Pristine pictures to make stimuli from: seven in the box, or a folder of one's own.

Every picture is stretched to 0..255 by its global minimum and maximum first. KADID-10k's pipeline
does so before and after it distorts; an unstretched reference would differ in contrast from its
"untouched" copy.

The rules for a folder (``--iqa-photos DIR``), each an error of one line that names the file:

- files directly inside, PNG, JPEG or WebP by suffix; others, hidden files and folders are left out
- 8 bits a channel in colour; greyscale, palette, CMYK, transparent and animated files are refused,
  and so is a picture that is grey in colour channels: a third of the distortions need colour
- turned as its EXIF orientation says; an embedded colour profile is converted to sRGB
- over 512 x 384 pixels in area: scaled down to that area, aspect kept (Lanczos); never enlarged;
  refused where the short side then has under 192 pixels, since KADID's distortions are sized in
  pixels of a 512 x 384 picture
- the same bytes twice count once; which pictures are used is drawn by seed from the file names
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.builtin.generation import VERSION, Recipe, key
from iqa_checks.errors import StimulusError
from iqa_checks.stimuli import read_image

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

WIDTH, HEIGHT = 512, 384
FOLDER = f"builtin-v{VERSION}"
LEAST_SIDE = 192
LEAST_RANGE, LEAST_CHROMA = 32, 12  # of 255; below: an empty picture, a grey one
MOST_PHOTOS = 30  # more contents than a quick set has stimuli would not be seen
TESTED = ("astronaut", "chelsea", "coffee", "motorcycle", "china")
HELD_OUT = ("rocket", "flower")  # for exemplars, in every set
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Photograph:
    """One pristine picture. ``file`` names it in the cache, ``note`` says what was done to it."""

    name: str
    folder: str
    file: str
    load: Callable[[], NDArray[np.uint8]] = field(compare=False)
    note: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """8-bit sRGB that spans 0..255, shape (H, W, 3)."""
        return self.load()

    @property
    def recipe(self) -> Recipe:
        """The undistorted picture itself."""
        return Recipe(f"{self.folder}/{self.file}", self.pixels)


@dataclass(frozen=True)
class Photographs:
    """Pictures to test on, and others for exemplars."""

    tested: tuple[Photograph, ...]
    held_out: tuple[Photograph, ...]
    note: str = ""

    def notes(self, used: Iterable[Photograph]) -> tuple[str, ...]:
        """What a reader of the results must know about the pictures that were used."""
        done = sorted({f"{photo.name} {photo.note}" for photo in used if photo.note})
        return tuple(filter(None, [self.note, "; ".join(done)]))


# --- in the box --------------------------------------------------------------------------------


def box() -> Photographs:
    """The photographs that ride in scikit-image and scikit-learn, at 512 x 384."""

    def boxed(name: str) -> Photograph:
        return Photograph(name, FOLDER, name, partial(photograph, name))

    return Photographs(tuple(map(boxed, TESTED)), tuple(map(boxed, HELD_OUT)))


@cache
def photograph(name: str) -> NDArray[np.uint8]:
    """A photograph of the box at 512 x 384, shape (384, 512, 3): centre crop, then Lanczos."""
    import numpy as np
    import PIL.Image

    pixels = _as_shipped(name)
    height, width = pixels.shape[:2]
    scale = min(height / HEIGHT, width / WIDTH)
    crop_h, crop_w = round(HEIGHT * scale), round(WIDTH * scale)
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    image = PIL.Image.fromarray(pixels[top : top + crop_h, left : left + crop_w])
    return stretched(np.asarray(image.resize((WIDTH, HEIGHT), PIL.Image.Resampling.LANCZOS)))


def _as_shipped(name: str) -> NDArray[np.uint8]:
    """The pixels of a photograph as its package carries it."""
    import numpy as np

    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(f"{name}.jpg"))
    from skimage import data

    if name == "motorcycle":
        left_view: Any = data.stereo_motorcycle
        return np.asarray(left_view()[0])
    return np.asarray(getattr(data, name)())


def stretched(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Global minimum to 0, maximum to 255."""
    import numpy as np

    low, high = int(pixels.min()), int(pixels.max())
    if (low, high) == (0, 255) or low == high:
        return pixels
    scaled = (pixels.astype(np.float64) - low) * (255.0 / (high - low))
    return np.floor(scaled + 0.5).astype(np.uint8)


# --- a folder of one's own ---------------------------------------------------------------------


def from_folder(folder: Path, seed: int) -> Photographs:
    """Photographs of ``folder``; exemplars come from the box, so that one photograph is enough.

    Raises `StimulusError` for a folder without any, and naming the first that cannot be used.
    """
    paths = sorted(_listed(folder), key=lambda path: key(seed, path.name))
    tested: dict[str, Photograph] = {}
    for path in paths[:MOST_PHOTOS]:
        photo = _checked(path)
        tested.setdefault(photo.folder, photo)
    note = f"{len(tested)} of {len(paths)} photographs of {folder}; exemplars from the box"
    return Photographs(tuple(tested.values()), box().held_out, note)


def _listed(folder: Path) -> list[Path]:
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise StimulusError(
            f"--iqa-photos {folder} cannot be read ({error.strerror}); "
            "give a folder of pristine photographs"
        ) from None
    paths = [p for p in names if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    if not paths:
        raise StimulusError(
            f"--iqa-photos {folder} holds no photographs: expected one or more pristine colour "
            f"pictures directly inside ({', '.join(SUFFIXES)})"
        )
    return paths


def _checked(path: Path) -> Photograph:
    """Check a photograph now, so that a bad one is an error before any model is asked."""
    image = read_image(path, where="--iqa-photos")
    _, note = _prepared(path, image.sha256)
    return Photograph(
        path.stem,
        f"photos-v{VERSION}/{image.sha256[:16]}",
        "photo",
        lambda: _prepared(path, image.sha256)[0],
        note,
    )


@lru_cache(maxsize=2 * MOST_PHOTOS)
def _prepared(path: Path, sha256: str) -> tuple[NDArray[np.uint8], str]:
    """Pixels of a photograph by the rules above, and a note of what was done to it."""
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    with PIL.Image.open(path) as opened:
        _refuse_unfit(opened, path)
        turned = PIL.ImageOps.exif_transpose(opened)
        image, note = _as_srgb(turned.convert("RGB"), opened.info.get("icc_profile"), path)
    notes = [note]
    size = _fitting(*image.size)
    if min(size) < LEAST_SIDE:
        raise _unfit(
            path,
            f"is {image.width} x {image.height} and would be {size[0]} x {size[1]}",
            f"at least {LEAST_SIDE} pixels on the short side at {WIDTH} x {HEIGHT} pixels of area",
        )
    if size != image.size:
        notes.append(f"scaled from {image.width} x {image.height} to {size[0]} x {size[1]}")
        image = image.resize(size, PIL.Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    _refuse_grey(pixels, path)
    whole = stretched(pixels)
    if whole is not pixels:
        notes.append(f"stretched from {pixels.min()}..{pixels.max()}")
    return whole, ", ".join(filter(None, notes))


def _fitting(width: int, height: int) -> tuple[int, int]:
    """The same aspect at no more than 512 x 384 pixels of area."""
    factor = math.sqrt(WIDTH * HEIGHT / (width * height))
    return (width, height) if factor >= 1 else (round(width * factor), round(height * factor))


def _refuse_unfit(image: PIL.Image.Image, path: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise _unfit(path, f"is animated ({frames} frames)", "one still picture")
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return  # an alpha channel that hides nothing
    if image.mode != "RGB":
        kind = _MODES.get(image.mode, f"has colour mode {image.mode}")
        raise _unfit(path, kind, "an 8-bit RGB picture without transparency")


_MODES = {
    "L": "is greyscale",
    "LA": "is greyscale",
    "1": "is black and white",
    "I": "is greyscale",
    "I;16": "is 16-bit greyscale",
    "F": "is greyscale",
    "P": "has a palette",
    "CMYK": "is CMYK",
    "RGBA": "is partly transparent",
}


def _refuse_grey(pixels: NDArray[np.uint8], path: Path) -> None:
    import numpy as np

    if int(pixels.max()) - int(pixels.min()) < LEAST_RANGE:
        raise _unfit(path, "has hardly any contrast", "a photograph")
    chroma = pixels.max(axis=2).astype(int) - pixels.min(axis=2)
    if np.percentile(chroma, 99) < LEAST_CHROMA:
        raise _unfit(path, "is grey in colour channels", "a colour picture")


def _as_srgb(
    image: PIL.Image.Image, profile: bytes | None, path: Path
) -> tuple[PIL.Image.Image, str]:
    """The picture converted from its embedded profile, and a note where that was another."""
    from PIL import ImageCms

    if not profile:
        return image, ""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if name.startswith("sRGB"):
            return image, ""
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        raise _unfit(path, "has a damaged colour profile", "sRGB, or a valid profile") from None
    assert converted is not None  # None only where it works in place
    return converted, f"converted from {name} to sRGB"


def _unfit(path: Path, found: str, expected: str) -> StimulusError:
    return StimulusError(
        f"--iqa-photos: {path} {found}; expected {expected}; replace it or move it away"
    )
