"""What a run would ask: calls, images, tokens and cost by cell, before anything is asked.

Tokens and cost are estimates: text at four characters a token, images at the model's
``tokens_per_image``, replies at half of what they may take. An adaptive design is planned as if
every answer were a tie; its number of calls varies by a few audits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_checks.cell import Cell
    from iqa_checks.models import ModelSpec

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PlanLine:
    """Totals of one cell. ``cost`` in the currency of the model's price, None without one.

    ``shared`` is the part of the prompt tokens that repeats the start of another prompt, which a
    prefix cache need not compute again, in 0..1.
    """

    cell: str
    calls: int
    images: int
    tokens: int
    shared: float
    cost: float | None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def plan_line(cell: Cell, spec: ModelSpec) -> PlanLine:
    """Count what a cell would ask of a model."""
    from iqa_checks.cell import plan

    prompts = plan(cell)
    per_image = spec.tokens_per_image
    text = sum(len(p.text) for p in prompts) // CHARACTERS_PER_TOKEN
    images = sum(len(p.images) for p in prompts)
    replies = sum(p.max_tokens for p in prompts) // 2
    asked = text + images * per_image
    seen: set[tuple[str, ...]] = set()
    repeated = 0
    for prompt in prompts:
        prefix: tuple[str, ...] = (prompt.text,)
        parts = [(len(prompt.text) // CHARACTERS_PER_TOKEN, prefix)]
        for image in prompt.images:
            prefix = (*prefix, image.sha256)
            parts.append((per_image, prefix))
        repeated += sum(tokens for tokens, part in parts if part in seen)
        seen.update(part for _, part in parts)
    cost = None
    if spec.price_per_million is not None:
        ask, answer = spec.price_per_million
        cost = (asked * ask + replies * answer) / 1e6
    return PlanLine(
        cell.id, len(prompts), images, asked + replies, repeated / asked if asked else 0.0, cost
    )


def plan_table(lines: Sequence[PlanLine]) -> list[str]:
    """The plan as text, a line per cell and one of totals."""
    width = max((len(line.cell) for line in lines), default=4)
    head = f"{'cell':{width}}  {'calls':>7} {'images':>7} {'tokens':>11} {'shared':>6} {'cost':>9}"
    total = PlanLine(
        "total",
        sum(line.calls for line in lines),
        sum(line.images for line in lines),
        sum(line.tokens for line in lines),
        sum(line.shared * line.tokens for line in lines) / max(1, sum(x.tokens for x in lines)),
        None if any(x.cost is None for x in lines) else sum(x.cost or 0 for x in lines),
    )
    return [head, *(_text(line, width) for line in (*lines, total))]


def _text(line: PlanLine, width: int) -> str:
    cost = "-" if line.cost is None else f"{line.cost:.2f}"
    return (
        f"{line.cell:{width}}  {line.calls:7,} {line.images:7,} {line.tokens:11,} "
        f"{line.shared:6.0%} {cost:>9}"
    )
