"""What ``--iqa-list`` shows, one function a list behind `LISTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqa_checks.models import ModelSpec
    from iqa_checks.settings import Settings


AUTOMATIC = "vllm, transformers"  # vLLM on a GPU, `transformers serve` elsewhere


def _sets(settings: Settings) -> list[str]:
    from iqa_checks.datasets import list_sets

    return list_sets(settings.source.data)


def _models(_: Settings) -> list[str]:
    from iqa_checks.models import SIMULATED, load_models

    lines: list[tuple[str, ...]]
    lines = [("name", "served by", "model", "images", "best in the paper", "US$/million", "note")]
    lines += [_model(spec) for spec in load_models().values()]
    lines += [
        (name, "in process", name, "", "", "0:0", "simulated: looks at the images; no endpoint")
        for name in SIMULATED
    ]
    any_id = ("openai:ID", "endpoint", "ID", "", "", "", "any OpenAI-compatible endpoint")
    weights = ("FOLDER, hub:ORG/NAME", AUTOMATIC, "weights", "", "", "", "any weights at hand")
    return _aligned([*lines, any_id, weights])


def _model(spec: ModelSpec) -> tuple[str, ...]:
    engine = spec.engine if len(spec.engine.split()) < 2 else "a command"
    revision = "" if spec.revision in ("", "main") else f"@{spec.revision[:8]}"
    price = ":".join(f"{p:g}" for p in spec.price_per_million or ())
    best = " ".join(spec.best or ()).replace("_", "-")
    return (
        spec.name,
        (engine or AUTOMATIC) if spec.repository else "endpoint",
        spec.model + revision,
        "" if spec.images_per_prompt is None else f"up to {spec.images_per_prompt}",
        best,
        price,
        spec.note,
    )


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
