"""What ``--iqa-list`` shows, one function a list behind `LISTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqa_checks.settings import Settings


def _sets(settings: Settings) -> list[str]:
    from iqa_checks.datasets import list_sets

    return list_sets(settings.source.data)


def _models(_: Settings) -> list[str]:
    from iqa_checks.models import SIMULATED, load_models

    lines = [("name", "provider", "model", "note")]
    lines += [(s.name, s.provider, s.model, s.note) for s in load_models().values()]
    lines += [(name, "simulated", name, "looks at the images; no endpoint") for name in SIMULATED]
    return _aligned([*lines, ("openai:ID", "openai", "ID", "any OpenAI-compatible endpoint")])


def _experts(_: Settings) -> list[str]:
    from iqa_checks.experts import expert_table

    return _aligned(expert_table())


def _strategies(settings: Settings) -> list[str]:
    from iqa_checks.prompts import load_strategies

    found = load_strategies(settings.strategies).values()
    lines = [("name", "exemplars", "max tokens", "templates")]
    lines += [
        (s.name, "yes" if s.exemplars else "no", str(s.max_tokens), str(s.templates)) for s in found
    ]
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest entry; the first line is the head."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


LISTS: dict[str, Callable[[Settings], list[str]]] = {
    "sets": _sets,
    "models": _models,
    "experts": _experts,
    "strategies": _strategies,
}
