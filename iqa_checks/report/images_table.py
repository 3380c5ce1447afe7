"""The images of a list that a model looks at, as lines of the summary."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_checks.multi_image import ImagesSeen


def images_lines(found: Sequence[ImagesSeen]) -> list[str]:
    """A line for each list length, in order; nothing where nothing was asked."""
    if not found:
        return []
    head = "images seen: response by place, 1 = follows every change, 0 = never looks there"
    return [head, *map(_line, sorted(found, key=lambda seen: seen.n_images))]


def _line(seen: ImagesSeen) -> str:
    places = "  ".join(
        f"{p.response:5.2f} [{p.low:5.2f}, {p.high:5.2f}] {p.status}" for p in seen.places
    )
    return (
        f"{seen.n_images:2} images: {places}; repeated called comparable {seen.comparable:.0%}, "
        f"{seen.unparsed:.0%} unparsed"
    )
