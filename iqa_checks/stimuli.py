"""What is judged: image files, their human opinion, and sets of them, verified when loaded.

An image is identified by the SHA-256 of its bytes. Those bytes are what a model is sent, unchanged
and under their true MIME type: nothing here decodes, resizes or re-encodes a stimulus.
"""

from __future__ import annotations

import hashlib
import math
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from iqa_checks.errors import StimulusError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Polarity = Literal["higher_better", "lower_better"]
SdKind = Literal["per_opinion", "of_the_mean", "none"]
Attribute = Literal[
    "structure", "texture", "geometry", "color_difference", "authentic", "generated", "general"
]
ATTRIBUTES: tuple[Attribute, ...] = (
    "structure", "texture", "geometry", "color_difference", "authentic", "generated", "general",
)  # fmt: skip

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000
SENDABLE = {"PNG", "JPEG", "WEBP", "GIF"}  # what chat endpoints document that they decode


@dataclass(frozen=True, slots=True)
class Image:
    """One image file as it will be sent. ``width`` and ``height`` in pixels as stored."""

    path: Path
    sha256: str
    mime: str
    width: int
    height: int

    def read(self) -> bytes:
        """The file's bytes; `StimulusError` if they are no longer those that were verified."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise StimulusError(f"{self.path}: {error.strerror} (it was there before)") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise StimulusError(
                f"{self.path} changed while the run was going on; start again with the file at rest"
            )
        return data


@dataclass(frozen=True, slots=True)
class Rated:
    """One row of a table of ratings, before its files have been opened.

    ``row`` says where it stands, for messages ("ratings.csv, row 12").
    """

    path: Path
    mos: float
    opinion_sd: float | None = None
    reference: Path | None = None
    sha256: str | None = None
    row: str = ""


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One verified stimulus: a distorted image, its reference if it has one, its human opinion.

    ``mos`` and ``opinion_sd`` stand in the unit of the published table (`StimulusSet.scale`).
    In a colour-difference set ``reference_image`` is the other photograph of the pair.
    """

    image: Image
    mos: float
    opinion_sd: float | None = None
    reference_image: Image | None = None

    @property
    def path(self) -> Path:
        return self.image.path

    @property
    def sha256(self) -> str:
        """Identity of the stimulus: of its bytes, and of its reference's where there is one."""
        if self.reference_image is None:
            return self.image.sha256
        pair = f"{self.reference_image.sha256}:{self.image.sha256}"
        return hashlib.sha256(pair.encode()).hexdigest()

    @property
    def reference(self) -> Path | None:
        return None if self.reference_image is None else self.reference_image.path


@dataclass(frozen=True, slots=True)
class StimulusSet:
    """Stimuli that were rated together, on one scale.

    ``scale`` is the lowest and highest score the rating procedure allows; ``polarity`` says which
    end is good. ``opinion`` names what the scores are (MOS, DMOS, expected opinion ...), in the
    words that tables use. ``notes`` are facts a reader of the results must know (a resize, say).
    """

    name: str
    stimuli: tuple[Stimulus, ...]
    scale: tuple[float, float]
    polarity: Polarity = "higher_better"
    attribute: Attribute = "general"
    opinion: str = "MOS"
    sd_kind: SdKind = "none"
    exemplars: tuple[Stimulus, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.stimuli)

    @property
    def has_references(self) -> bool:
        return all(s.reference_image is not None for s in self.stimuli)

    @property
    def mos(self) -> NDArray[np.float64]:
        """Human scores as published, shape (M,)."""
        import numpy as np

        return np.array([s.mos for s in self.stimuli], dtype=np.float64)

    @property
    def quality(self) -> NDArray[np.float64]:
        """Human scores on 0..100, higher = better whatever the polarity, shape (M,)."""
        import numpy as np

        return np.array([self.quality_of(s) for s in self.stimuli], dtype=np.float64)

    def quality_of(self, stimulus: Stimulus) -> float:
        """The score of one stimulus on 0..100, higher = better."""
        low, high = self.scale
        fraction = (stimulus.mos - low) / (high - low)
        return 100.0 * (fraction if self.polarity == "higher_better" else 1.0 - fraction)

    @property
    def references(self) -> tuple[str, ...]:
        """SHA-256 of each stimulus's reference ('' where it has none), in stimulus order."""
        return tuple(
            "" if s.reference_image is None else s.reference_image.sha256 for s in self.stimuli
        )

    @property
    def manifest(self) -> str:
        """SHA-256 over all stimuli and scores: two sets with one manifest ask the same thing.

        The order of the stimuli does not matter.
        """
        lines = sorted(f"{s.sha256} {s.mos!r} {s.opinion_sd!r}" for s in self.stimuli)
        head = f"{self.scale!r} {self.polarity}"
        return hashlib.sha256("\n".join([head, *lines]).encode()).hexdigest()

    def with_references(self) -> StimulusSet:
        """The stimuli that have a reference, as a set of their own."""
        kept = tuple(s for s in self.stimuli if s.reference_image is not None)
        return self if len(kept) == len(self) else self.subset(kept, "stimuli with a reference")

    def subset(self, kept: Sequence[Stimulus], why: str) -> StimulusSet:
        """The same set with fewer stimuli; the reason goes into its notes."""
        note = f"{len(kept)} of {len(self)} stimuli: {why}"
        return replace(self, stimuli=tuple(kept), notes=(*self.notes, note))


def verify(rows: Iterable[Rated], *, name: str) -> tuple[Stimulus, ...]:
    """Open, check and hash every image of ``rows``; each file is read once.

    Raises
    ------
    StimulusError
        For the first file that is absent, unreadable, truncated, of a kind that endpoints do not
        decode, too large, or whose hash differs from the recorded one; it names the row.
    """
    seen: dict[Path, Image] = {}

    def open_once(path: Path, row: Rated, expected: str | None) -> Image:
        where = row.row or name
        if path not in seen:
            seen[path] = read_image(path, where=where, expected_sha256=expected)
        _check_hash(seen[path].sha256, expected, path, where)
        return seen[path]

    stimuli = []
    for row in rows:
        image = open_once(row.path, row, row.sha256)
        reference = None if row.reference is None else open_once(row.reference, row, None)
        stimuli.append(Stimulus(image, row.mos, row.opinion_sd, reference))
    return tuple(stimuli)


def read_image(path: Path, *, where: str, expected_sha256: str | None = None) -> Image:
    """Check one image file without changing it, and return what identifies it.

    The whole file is verified: PNG by its chunk checksums, other formats by decoding. A file over
    64 MiB or 100 megapixels is refused before it is decoded.
    """
    data = _read_bytes(path, where)
    digest = hashlib.sha256(data).hexdigest()
    _check_hash(digest, expected_sha256, path, where)
    mime, width, height = _inspect(data, path, where)
    return Image(path, digest, mime, width, height)


def _check_hash(digest: str, expected: str | None, path: Path, where: str) -> None:
    if expected is not None and digest != expected.lower():
        raise StimulusError(
            f"{where}: {path} has changed: expected SHA-256 {expected[:12]}…, "
            f"got {digest[:12]}…; restore the file or make its table again"
        )


def _read_bytes(path: Path, where: str) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe or a device may never end
            raise StimulusError(f"{where}: image {path} is not a file; give an image file")
        if about.st_size > MAX_BYTES:
            raise StimulusError(
                f"{where}: {path} has {about.st_size / 2**20:.0f} MiB; at most "
                f"{MAX_BYTES // 2**20} MiB are sent to a model; give a smaller file"
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise StimulusError(
            f"{where}: image {str(path)!r} cannot be read ({why}); "
            "check the path, which is taken relative to its table's folder"
        ) from None
    if not data:
        raise StimulusError(f"{where}: image {path} is empty (0 bytes); get it again")
    return data


def _inspect(data: bytes, path: Path, where: str) -> tuple[str, int, int]:
    """MIME type, width and height of an image that decodes completely."""
    import io

    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(data)) as image:
                kind, (width, height) = image.format or "?", image.size
                kind = "JPEG" if kind == "MPO" else kind  # phones append a second view
                if kind in SENDABLE and width * height <= MAX_PIXELS:
                    image.verify() if kind == "PNG" else image.load()
    except PIL.Image.DecompressionBombError:
        raise StimulusError(_too_many(path, where, "far more")) from None
    except PIL.UnidentifiedImageError:
        raise StimulusError(
            f"{where}: {path} is not an image; expected {', '.join(sorted(SENDABLE))}"
        ) from None
    except Exception as error:  # Pillow raises a dozen types on damaged input
        raise StimulusError(
            f"{where}: {path} is not a whole image ({error}); get it again"
        ) from None
    if kind not in SENDABLE:
        raise StimulusError(
            f"{where}: {path} is a {kind} file; models are sent {', '.join(sorted(SENDABLE))}; "
            "convert it without loss to PNG"
        )
    if width * height > MAX_PIXELS:
        raise StimulusError(_too_many(path, where, f"{width} x {height}"))
    return PIL.Image.MIME[kind], width, height


def _too_many(path: Path, where: str, pixels: str) -> str:
    return (
        f"{where}: {path} has {pixels} pixels; at most {MAX_PIXELS:,} are decoded; "
        "give a smaller image"
    )


def check_opinions(rows: Sequence[Rated], scale: tuple[float, float], *, name: str) -> None:
    """Scores must be finite, inside ``scale``, and not all equal; no stimulus twice.

    Raises `StimulusError` naming the row.
    """
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise StimulusError(f"{name}: the scale {low:g}..{high:g} is empty; give its two ends")
    seen: dict[tuple[Path, Path | None], Rated] = {}
    for row in rows:
        if not low <= row.mos <= high:
            raise StimulusError(
                f"{row.row}: score {row.mos:g} of {row.path.name} lies outside the scale "
                f"{low:g}..{high:g}; correct it or give the scale with --iqa-scale LOW:HIGH"
            )
        if row.opinion_sd is not None and not 0 <= row.opinion_sd < math.inf:
            raise StimulusError(
                f"{row.row}: opinion SD {row.opinion_sd:g} is not a finite number >= 0"
            )
        twin = seen.setdefault((row.path, row.reference), row)
        if twin is not row:
            raise StimulusError(
                f"{row.row}: {row.path.name} was rated before, in {twin.row}; "
                "keep one row per stimulus"
            )
    if not rows:
        raise StimulusError(f"{name}: no stimuli; expected at least one row of ratings")
    if len({row.mos for row in rows}) == 1:
        raise StimulusError(
            f"{name}: all {len(rows)} scores are {rows[0].mos:g}: no correlation is defined; "
            "check the score column"
        )
