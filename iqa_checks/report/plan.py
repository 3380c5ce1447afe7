"""What a run would ask: calls, images, tokens and cost by cell, before anything is asked.

Tokens and cost are estimates: text at four characters a token, images at the model's
``tokens_per_image``, replies at half of what they may take. An adaptive design is planned as if
every answer were a tie; its number of calls varies by a few audits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from iqa_checks.cell import Cell
    from iqa_checks.models import ModelSpec
    from iqa_checks.prompts import Prompt
    from iqa_checks.settings import Settings
    from iqa_checks.stimuli import StimulusSet

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PlanLine:
    """Totals of one cell. ``cost`` in the currency of the model's price, None without one.

    ``tokens`` counts prompts and replies, ``prompt_tokens`` prompts alone; ``shared`` is the part
    of the latter that repeats the start of an earlier prompt of the cell (text first, then images
    in order), which a prefix cache need not compute again, in 0..1. ``system`` is the prompting
    system, '' where there is none.
    """

    cell: str
    calls: int
    images: int
    tokens: int
    prompt_tokens: int
    shared: float
    cost: float | None
    system: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def plan_line(cell: Cell, spec: ModelSpec) -> PlanLine:
    """Count what a cell would ask of a model."""
    from iqa_checks.cell import plan

    system = f"{cell.protocol} {cell.strategy.replace('_', '-')}"
    return replace(line_of(cell.id, plan(cell), spec), system=system)


def images_line(n_images: int, settings: Settings) -> PlanLine:
    """Count what the check of a list of ``n_images`` would ask."""
    from iqa_checks.builtin import damaged_versions
    from iqa_checks.models import find_model
    from iqa_checks.multi_image import N_CONTENTS, prompts_of

    source = settings.source
    contents = damaged_versions(
        source.cache_dir, photos=source.photos, n=N_CONTENTS, seed=source.seed
    )
    prompts = list(prompts_of(contents, n_images).values())
    return line_of(f"{n_images} images seen", prompts, find_model(settings.model))


def line_of(name: str, prompts: Sequence[Prompt], spec: ModelSpec) -> PlanLine:
    """Count what some prompts would ask of a model."""
    per_image = spec.tokens_per_image
    text = sum(len(p.text) // CHARACTERS_PER_TOKEN for p in prompts)
    images = sum(len(p.images) for p in prompts)
    least = spec.parameters.get("max_tokens", 0)
    replies = sum(max(p.max_tokens, least) for p in prompts) // 2
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
    shared = repeated / asked if asked else 0.0
    return PlanLine(name, len(prompts), images, asked + replies, asked, shared, cost)


def announcement(names: Sequence[str], settings: Settings) -> str:
    """One line on what a paid run is about to ask, or on who serves a local model; '' otherwise.

    ``names`` are cell ids ("fr-double-standard-builtin"), or "images-4" for the check that every
    one of 4 images is seen. Cells whose stimuli are absent will skip and are left out.
    """
    from iqa_checks.models import is_served_here

    spec = settings.spec
    if is_served_here(spec, settings.access):
        from iqa_checks.models.engines import engine_line

        return f"asking {settings.model}: {engine_line(spec, settings.access.serving)}"
    if spec.provider != "openai":
        return ""
    loaded: dict[tuple[str, str], StimulusSet | None] = {}
    checked = [name for name in names if name.startswith("images-")]
    found = [_cell(name, settings, loaded) for name in names if name not in checked]
    cells = [cell for cell in found if cell is not None and _takes(spec, cell)]
    checks = [images_line(int(name.removeprefix("images-")), settings) for name in checked]
    total = _total([*(plan_line(cell, spec) for cell in cells), *checks])
    cost = "" if total.cost is None else f", about {total.cost:.2f} US dollars"
    return (
        f"asking {settings.model}: up to {total.calls:,} calls with {total.images:,} images in "
        f"{len(cells) + len(checks)} tests, about {total.tokens:,} tokens{cost}, less what is "
        "stored already"
    )


def _takes(spec: ModelSpec, cell: Cell) -> bool:
    """Whether the cell will be asked: one with too many images, or without exemplars, skips."""
    from iqa_checks.cell import check_images
    from iqa_checks.errors import ExemplarsAbsent, TooManyImages

    try:
        check_images(cell, spec)
    except (TooManyImages, ExemplarsAbsent):
        return False
    return True


def _cell(
    name: str, settings: Settings, loaded: dict[tuple[str, str], StimulusSet | None]
) -> Cell | None:
    """The cell of an id, or None where its stimuli are not at hand; sets are loaded once."""
    from iqa_checks.cell import Cell
    from iqa_checks.errors import StimuliAbsent
    from iqa_checks.prompts import load_strategies

    scenario, protocol, rest = name.split("-", 2)
    strategies = sorted(load_strategies(settings.strategies), key=len, reverse=True)
    strategy = next((s for s in strategies if rest.startswith(f"{s}-")), None)
    if strategy is None:
        return None
    key = (rest[len(strategy) + 1 :], scenario)
    if key not in loaded:
        selection: Any = "difficult" if key[0].endswith("-difficult") else "uniform"
        stimuli_name = key[0].removesuffix("-difficult")
        try:
            loaded[key] = settings.stimuli(stimuli_name, cast(Any, scenario), selection)
        except StimuliAbsent:
            loaded[key] = None
    stimuli = loaded[key]
    if stimuli is None:
        return None
    return Cell(
        stimuli, cast(Any, scenario), cast(Any, protocol), strategy,
        preset=settings.preset, seed=settings.seed, repeats=settings.repeats,
        soft=settings.soft, strategies=settings.strategies,
    )  # fmt: skip


def plan_table(lines: Sequence[PlanLine]) -> list[str]:
    """The plan as text: a line per cell, one per prompting system where several, and the total.

    ``shared`` is what a prefix cache saves of the prompts' tokens.
    """
    systems = dict.fromkeys(line.system for line in lines if line.system)
    sums = [_total([x for x in lines if x.system == s], f"all {s}") for s in systems]
    shown = [*lines, *(sums if len(lines) > len(sums) > 1 else ()), _total(lines)]
    width = max(len(line.cell) for line in shown)
    head = f"{'cell':{width}}  {'calls':>7} {'images':>7} {'tokens':>11} {'shared':>6} {'cost':>9}"
    return [head, *(_text(line, width) for line in shown)]


def _total(lines: Sequence[PlanLine], name: str = "total") -> PlanLine:
    prompts = sum(line.prompt_tokens for line in lines)
    priced = all(line.cost is not None for line in lines)
    return PlanLine(
        name,
        sum(line.calls for line in lines),
        sum(line.images for line in lines),
        sum(line.tokens for line in lines),
        prompts,
        sum(line.shared * line.prompt_tokens for line in lines) / max(1, prompts),
        sum(line.cost or 0 for line in lines) if priced else None,
    )


def _text(line: PlanLine, width: int) -> str:
    cost = "-" if line.cost is None else f"{line.cost:.2f}"
    return (
        f"{line.cell:{width}}  {line.calls:7,} {line.images:7,} {line.tokens:11,} "
        f"{line.shared:6.0%} {cost:>9}"
    )
