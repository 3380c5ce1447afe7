"""One line of a results table: everything plain Python, so that it crosses processes.

One numpy scalar in a report aborts an xdist run; `row_of` is where they end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_checks.agreement import Correlation
    from iqa_checks.cell import CellResult
    from iqa_checks.gate import Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with its 95 % interval; ``value`` None is undefined, and ``reason`` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """What one cell measured. Rates in 0..1; ``trials`` counts questions, repeats included.

    ``srcc`` is the headline (FR: mean over references, ``srcc_pooled`` beside it). ``chance_srcc``
    is what 1 in 20 permutations reach. ``replies`` counts by origin: new, resumed, reused.
    ``per_stimulus`` holds name, SHA-256, human score and model score of each stimulus. ``retest``
    is the reliability of repeated trials (`retest.Retest`), None without repeats. ``soft`` is the
    share of usable answers read from token probabilities, None where none were asked for.
    ``parameters`` says what of the asked parameters the endpoint would not take.
    """

    cell: str
    model: str
    stimuli: str
    scenario: str
    protocol: str
    strategy: str
    selection: str
    preset: str
    opinion: str
    attribute: str
    manifest: str
    n: int
    n_references: int | None
    trials: int
    srcc: Interval
    srcc_pooled: Interval
    plcc: Interval
    plcc_raw: Interval
    krcc: Interval
    chance_srcc: float | None
    chance_plcc: float | None
    chance_p: float | None
    unparsed_rate: float
    unparsed: dict[str, int]
    tie_rate: float | None
    position_bias: float | None
    consistency: float | None
    replies: dict[str, int]
    tokens: dict[str, int]
    verdict: str
    passed: bool
    explanation: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    per_stimulus: tuple[tuple[str, str, float, float | None], ...]
    retest: float | None = None  # rows saved before there were these fields have the default
    retest_kappa: float | None = None
    soft: float | None = None
    parameters: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Row:
        """The inverse of `plain`, also after a trip through JSON."""
        intervals = ("srcc", "srcc_pooled", "plcc", "plcc_raw", "krcc")
        lists = {name: tuple(plain[name]) for name in ("warnings", "notes")}
        lists["parameters"] = tuple(plain.get("parameters", ()))
        stimuli = tuple(tuple(item) for item in plain["per_stimulus"])
        read = {name: Interval(**plain[name]) for name in intervals}
        return cls(**{**plain, **lists, **read, "per_stimulus": stimuli})


def row_of(result: CellResult, verdict: Verdict, model: str) -> Row:
    """The row of a measured and judged cell."""
    cell, stimuli = result.cell, result.cell.stimuli
    origins = Counter(asked.reply.origin for asked in result.asked)
    return Row(
        cell=cell.id,
        model=model,
        stimuli=stimuli.name,
        scenario=cell.scenario,
        protocol=cell.protocol,
        strategy=cell.strategy,
        selection=cell.selection,
        preset=cell.preset,
        opinion=stimuli.opinion,
        attribute=stimuli.attribute,
        manifest=stimuli.manifest,
        n=len(stimuli),
        n_references=len(set(stimuli.references)) if cell.scenario == "fr" else None,
        trials=len(result.asked),
        srcc=_interval(result.srcc),
        srcc_pooled=_interval(result.srcc_pooled),
        plcc=_interval(result.plcc),
        plcc_raw=_interval(result.plcc_raw),
        krcc=_interval(result.krcc),
        chance_srcc=_float(result.chance.upper),
        chance_plcc=_float(result.plcc_chance.upper),
        chance_p=_float(result.chance.p_value),
        unparsed_rate=float(result.unparsed_rate),
        unparsed=dict(result.unparsed),
        tie_rate=_float(result.tie_rate),
        position_bias=_float(result.position_bias),
        consistency=_float(result.consistency),
        replies={origin: origins[origin] for origin in ("new", "resumed", "reused")},
        tokens={
            "prompt": sum(a.reply.prompt_tokens or 0 for a in result.asked),
            "completion": sum(a.reply.completion_tokens or 0 for a in result.asked),
        },
        verdict=verdict.status,
        passed=verdict.passed,
        explanation=str(verdict),
        warnings=result.warnings,
        notes=(*stimuli.notes, *verdict.remarks),
        per_stimulus=tuple(
            (s.path.name, s.sha256, float(s.mos), None if score != score else float(score))
            for s, score in zip(stimuli.stimuli, result.scores.tolist(), strict=True)
        ),
        retest=_float(result.retest),
        retest_kappa=_float(result.retest_kappa),
        soft=_float(result.soft),
        parameters=_parameters(result),
    )


def _parameters(result: CellResult) -> tuple[str, ...]:
    """What was not sent as asked, in the order in which it was found out; usually nothing."""
    said = dict.fromkeys(asked.reply.changed for asked in result.asked if asked.reply.changed)
    return tuple(dict.fromkeys(part for line in said for part in line.split("; ")))


def _interval(measured: Correlation) -> Interval:
    return Interval(
        _float(measured.value), _float(measured.low), _float(measured.high), measured.reason
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
