"""One cell from stimuli to statistics: the only place that knows all stages.

    stimuli -> protocols -> prompts -> Asker -> parsing -> scaling -> agreement

A cell is stimulus set x scenario x protocol x strategy. All its trials are asked in here, because
a correlation needs them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iqa_checks.agreement import ChanceLevel, Correlation, chance_level, correlation
from iqa_checks.errors import DesignError, TooManyImages, known_names
from iqa_checks.parsing import parse_reply
from iqa_checks.parsing.soft import TOP_LOGPROBS, soften
from iqa_checks.prompts import SCENARIOS, Prompt, Scenario, Strategy, build_prompt, find_strategy
from iqa_checks.protocols import (
    ANSWERS,
    LIST_LENGTH,
    PAIR_LIST_LENGTH,
    PROTOCOLS,
    Design,
    Judgement,
    Preference,
    Preset,
    ProtocolName,
    Ranking,
    Rating,
    Trial,
    Unparsed,
    double_stimulus,
    double_stimulus_paper,
    multiple_stimulus,
    multiple_stimulus_paper,
    repeated,
    single_stimulus,
)
from iqa_checks.retest import retest
from iqa_checks.scaling import Comparisons, QualityScale, pairs_from_ranking, scale
from iqa_checks.stimuli import StimulusSet
from iqa_checks.summary_statistics import fit_direction, rank_statistic, summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqa_checks.broker import Asker
    from iqa_checks.models import ModelSpec
    from iqa_checks.replies import Reply

Selection = Literal["uniform", "difficult"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What to measure. ``seed`` decides trials and orders, never the strategy or the model.

    ``soft`` reads ratings and preferences from the model's token probabilities (`parsing.soft`).
    """

    stimuli: StimulusSet
    scenario: Scenario
    protocol: ProtocolName
    strategy: str = "standard"
    preset: Preset = "sound"
    scaling: str = "thurstone_map"
    seed: int = 0
    repeats: int = 1
    soft: bool = False
    selection: Selection = "uniform"
    strategies: Path | None = None

    @property
    def id(self) -> str:
        """Stable and readable: "fr-double-standard-builtin", "...-difficult"."""
        selected = "-difficult" if self.selection == "difficult" else ""
        return f"{self.scenario}-{self.protocol}-{self.strategy}-{self.stimuli.name}{selected}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One trial, what the model replied, and how that was read: softly, or as it is written."""

    trial: Trial
    reply: Reply
    judgement: Judgement
    soft: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CellResult:
    """What a cell measured.

    ``scores`` are on the model's own scale, shape (M,), nan where no reply gave one. ``srcc`` is
    the headline: pooled (NR), or the mean over references (FR), where ``srcc_pooled`` stands
    beside it. ``plcc`` is after a monotone logistic, ``plcc_raw`` without. ``retest`` is the
    reliability of repeated trials (see `retest.Retest`), None without repeats. ``soft`` is the
    share of usable answers that were read from token probabilities, None where none were asked for.
    """

    cell: Cell
    scores: NDArray[np.float64]
    asked: tuple[Asked, ...]
    srcc: Correlation
    srcc_pooled: Correlation
    plcc: Correlation
    plcc_raw: Correlation
    krcc: Correlation
    chance: ChanceLevel
    plcc_chance: ChanceLevel
    position_bias: float | None = None
    consistency: float | None = None
    tie_rate: float | None = None
    retest: float | None = None
    retest_kappa: float | None = None
    soft: float | None = None
    warnings: tuple[str, ...] = ()
    unparsed: dict[str, int] = field(default_factory=dict)

    @property
    def unparsed_rate(self) -> float:
        return sum(self.unparsed.values()) / max(1, len(self.asked))


def run_cell(cell: Cell, model: Asker | str) -> CellResult:
    """Ask all trials of a cell and compute its statistics.

    Parameters
    ----------
    model
        An `Asker`, or a model as ``--model`` takes it ("observer:noise=5").

    Raises
    ------
    DesignError
        Too few stimuli for the protocol, or for the strategy's exemplars.
    InfrastructureError
        The model could not be asked. What was answered before is in the reply store.
    TooManyImages
        A model by name takes fewer images in a prompt than the cell's prompts show.
    """
    for what, name, known in (
        ("scenario", cell.scenario, SCENARIOS),
        ("protocol", cell.protocol, PROTOCOLS),
    ):
        if name not in known:
            raise known_names(what, name, known)
    if isinstance(model, str):
        from iqa_checks.models import find_model

        check_images(cell, find_model(model))
        with _asker(model) as asker:
            return run_cell(cell, asker)
    if cell.scenario != "nr":
        cell = replace(cell, stimuli=cell.stimuli.with_references())
        if not cell.stimuli.stimuli:
            raise DesignError(f"{cell.id}: no stimulus has a reference; run the nr cells (-k nr)")
    asked = tuple(_ask_all(cell, model))
    return _measured(cell, asked)


def check_images(cell: Cell, spec: ModelSpec) -> None:
    """Raise `TooManyImages` where ``spec`` takes fewer images than a prompt of the cell shows."""
    if spec.images_per_prompt is None:
        return
    shown = most_images(cell)
    if shown > spec.images_per_prompt:
        images = "one image" if spec.images_per_prompt == 1 else f"{spec.images_per_prompt} images"
        raise TooManyImages(
            f"{spec.name} takes at most {images} in a prompt (images_per_prompt in models.yaml); "
            f"{cell.protocol}-stimulus {cell.strategy.replace('_', '-')} {cell.scenario.upper()} "
            f"prompts show {shown}"
        )


def most_images(cell: Cell) -> int:
    """How many images the longest prompt of a cell shows."""
    if cell.scenario != "nr":
        cell = replace(cell, stimuli=cell.stimuli.with_references())
    groups = cell.stimuli.references if cell.scenario == "fr" else ("",) * len(cell.stimuli)
    largest = max(Counter(groups).values(), default=0)
    group = next((g for g, n in Counter(groups).items() if n == largest), "")
    members = [i for i, g in enumerate(groups) if g == group]
    longest = {"single": 1, "double": 2, "multiple": _list_length(cell)}[cell.protocol]
    if not members:
        return 0
    strategy = find_strategy(cell.strategy, cell.strategies)
    return len(_prompt(cell, strategy, Trial(tuple(members[:longest]))).images)


def plan(cell: Cell) -> list[Prompt]:
    """The prompts of a cell without asking any; an adaptive design is planned as if all tied."""
    strategy = find_strategy(cell.strategy, cell.strategies)
    prompts: list[Prompt] = []
    design = repeated(_design(cell), cell.repeats)
    ties: Sequence[Judgement] = ()
    try:
        trials = next(design)
        while True:
            prompts += [_prompt(cell, strategy, trial) for trial in trials]
            ties = [Unparsed("not asked")] * len(trials)
            trials = design.send(ties)
    except StopIteration:
        return prompts


def _ask_all(cell: Cell, asker: Asker) -> Iterator[Asked]:
    strategy = find_strategy(cell.strategy, cell.strategies)
    design = repeated(_design(cell), cell.repeats)
    try:
        trials = next(design)
        while True:
            prompts = [_prompt(cell, strategy, trial) for trial in trials]
            replies = asker.ask(prompts)
            asked = [
                _asked(cell, t, p, r) for t, p, r in zip(trials, prompts, replies, strict=True)
            ]
            yield from asked
            trials = design.send([a.judgement for a in asked])
    except StopIteration:
        return


def _prompt(cell: Cell, strategy: Strategy, trial: Trial) -> Prompt:
    prompt = build_prompt(
        trial,
        cell.stimuli,
        protocol=cell.protocol,
        strategy=strategy,
        scenario=cell.scenario,
        preset=cell.preset,
    )
    return replace(prompt, top_logprobs=TOP_LOGPROBS) if reads_softly(cell) else prompt


def reads_softly(cell: Cell) -> bool:
    """Whether token probabilities are asked for: the order of a list cannot be read from them."""
    return cell.soft and ANSWERS[cell.protocol] != "ranking"


def _asked(cell: Cell, trial: Trial, prompt: Prompt, reply: Reply) -> Asked:
    written = _read(reply.text, prompt, reply)
    if not reads_softly(cell):
        return Asked(trial, reply, written)
    soft = soften(written, reply.text, reply.logprobs, lambda text: _read(text, prompt, reply))
    return Asked(trial, reply, written if soft is None else soft, soft is not None)


def _read(text: str, prompt: Prompt, reply: Reply) -> Judgement:
    return parse_reply(
        text,
        prompt.answer,
        n_stimuli=prompt.n_stimuli,
        n_before=prompt.n_before,
        finish_reason=reply.finish_reason,
        images_per_stimulus=prompt.images_per_stimulus,
    )


def _design(cell: Cell) -> Design:
    stimuli = cell.stimuli
    groups = stimuli.references if cell.scenario == "fr" else ("",) * len(stimuli)
    hashes = [s.sha256 for s in stimuli.stimuli]
    length = _list_length(cell)
    if cell.protocol == "single":
        return single_stimulus(len(stimuli))
    if cell.protocol == "double":
        if cell.preset == "paper":
            return double_stimulus_paper(len(stimuli), groups)

        def current(trials: Sequence[Trial], judgements: Sequence[Judgement]) -> Any:
            asked = zip(trials, judgements, strict=True)
            return _scale(cell, [(t, j) for t, j in asked]).scores

        return double_stimulus(hashes, groups, current, seed=cell.seed)
    if cell.preset == "paper":
        return multiple_stimulus_paper(len(stimuli), groups, length=length)
    return multiple_stimulus(hashes, groups, seed=cell.seed, length=length)


def _list_length(cell: Cell) -> int:
    return PAIR_LIST_LENGTH if cell.scenario == "difference" else LIST_LENGTH


def _scale(cell: Cell, judged: Sequence[tuple[Trial, Judgement]]) -> QualityScale:
    """Quality scale of all stimuli from preferences or rankings; Unparsed ones are left out."""
    pairs: list[tuple[int, int, float]] = []
    for trial, judgement in judged:
        if isinstance(judgement, Preference):
            pairs.append((trial.stimuli[0], trial.stimuli[1], judgement.worth))
        elif isinstance(judgement, Ranking):
            pairs += [
                (trial.stimuli[i], trial.stimuli[j], outcome)
                for i, j, outcome in pairs_from_ranking(judgement.ranks)
            ]
    shown_in_order = cell.protocol == "double"
    comparisons = Comparisons.from_judgements(
        pairs,
        len(cell.stimuli),
        tie_weight=0.5 if cell.preset == "sound" else 1.0,
        ordered=shown_in_order,
    )
    bias = shown_in_order and cell.preset == "sound"
    return scale(comparisons, cell.scaling, position_bias=bias)


def _measured(cell: Cell, asked: tuple[Asked, ...]) -> CellResult:
    reasons = Counter(a.judgement.reason for a in asked if isinstance(a.judgement, Unparsed))
    warnings: list[str] = []
    bias = None
    if ANSWERS[cell.protocol] == "rating":
        scores = _mean_ratings(asked, len(cell.stimuli))
    else:
        quality = _scale(cell, [(a.trial, a.judgement) for a in asked])
        compared = {
            i for a in asked if not isinstance(a.judgement, Unparsed) for i in a.trial.stimuli
        }
        scores = np.array(
            [quality.scores[i] if i in compared else np.nan for i in range(len(cell.stimuli))]
        )
        if cell.preset == "paper":
            scores = _on_0_to_100(scores, cell.stimuli.references if cell.scenario == "fr" else ())
        bias = quality.position_bias
        expected = len(set(cell.stimuli.references)) if cell.scenario == "fr" else 1
        if quality.n_components > expected:  # references are apart by design
            warnings += quality.warnings
        else:
            warnings += [w for w in quality.warnings if "component" not in w]
    agreement = _agreement(cell, scores)
    trials, judgements = [a.trial for a in asked], [a.judgement for a in asked]
    reliability = retest(trials, judgements) if cell.repeats > 1 else None
    srcc: Correlation = agreement["srcc"]
    few = srcc.n < 4 if srcc.n_clusters is None else srcc.n_clusters < 3
    if srcc.value is not None and few:
        warnings.append(f"SRCC has no interval, so no gate can fail on it: {srcc.reason}")
    return CellResult(
        cell=cell,
        scores=scores,
        asked=asked,
        **agreement,
        position_bias=bias,
        consistency=_consistency(asked),
        tie_rate=_tie_rate(asked),
        retest=None if reliability is None else reliability.value,
        retest_kappa=None if reliability is None else reliability.kappa,
        soft=_soft_share(asked) if reads_softly(cell) else None,
        warnings=tuple(warnings),
        unparsed=dict(sorted(reasons.items())),
    )


def _on_0_to_100(scores: NDArray[np.float64], references: Sequence[str]) -> NDArray[np.float64]:
    """Each reference's scores (all scores where there are none) from worst 0 to best 100."""
    groups = np.array(references) if references else np.full(len(scores), "")
    scaled = scores.copy()
    for group in np.unique(groups):
        member = groups == group
        known = scores[member][~np.isnan(scores[member])]
        if len(known) and known.max() > known.min():
            scaled[member] = 100 * (scores[member] - known.min()) / (known.max() - known.min())
    return scaled


def _mean_ratings(asked: Sequence[Asked], n: int) -> NDArray[np.float64]:
    ratings: list[list[float]] = [[] for _ in range(n)]
    for a in asked:
        if isinstance(a.judgement, Rating):
            ratings[a.trial.stimuli[0]].append(a.judgement.score)
    return np.array([np.mean(r) if r else np.nan for r in ratings])


def _agreement(cell: Cell, scores: NDArray[np.float64]) -> dict[str, Any]:
    """All correlations over the stimuli that have a score."""
    known = ~np.isnan(scores)
    x, y = scores[known], cell.stimuli.quality[known]
    references = np.array(cell.stimuli.references)[known] if cell.scenario == "fr" else None
    shown = summarise(x, y, references, cell.preset)
    paper = cell.preset == "paper"
    statistic, direction = rank_statistic(cell.preset), fit_direction(cell.preset)
    summary: Any = "pooled" if references is None else "cluster_mean"
    permuted: dict[str, Any] = {"cluster": references, "seed": cell.seed, "summary": summary}
    n_permutations = 200 if paper else 1000  # a fit of free sign is redone in each
    return {
        "srcc": shown.srcc,
        "srcc_pooled": shown.srcc_pooled,
        "plcc": shown.plcc,
        "plcc_raw": correlation(x, y, statistic="plcc", mapping="none", cluster=references),
        "krcc": correlation(x, y, statistic="krcc", cluster=references),
        "chance": chance_level(
            x,
            y,
            statistic=statistic,
            direction=direction,
            n_permutations=n_permutations,
            **permuted,
        ),
        "plcc_chance": chance_level(
            x,
            y,
            statistic="plcc",
            direction=direction,
            n_permutations=200,
            **{**permuted, "summary": summary if paper else "pooled"},
        ),
    }


def _consistency(asked: Sequence[Asked]) -> float | None:
    """Share of the pairs asked in both orders that got the same answer; None where none was."""
    answers: dict[tuple[int, ...], str] = {}
    same = []
    for a in asked:
        if len(a.trial.stimuli) != 2 or not isinstance(a.judgement, Preference):
            continue
        mirrored = {"first": "second", "second": "first", "comparable": "comparable"}
        before = answers.get(a.trial.stimuli[::-1])
        if before is not None:
            same.append(mirrored[before] == a.judgement.choice)
        answers[a.trial.stimuli] = a.judgement.choice
    return float(np.mean(same)) if same else None


def _soft_share(asked: Sequence[Asked]) -> float | None:
    usable = [a.soft for a in asked if not isinstance(a.judgement, Unparsed)]
    return sum(usable) / len(usable) if usable else None


def _tie_rate(asked: Sequence[Asked]) -> float | None:
    choices = [a.judgement.choice for a in asked if isinstance(a.judgement, Preference)]
    return choices.count("comparable") / len(choices) if choices else None


@contextmanager
def _asker(model: str) -> Iterator[Asker]:
    """A broker of its own for one call from Python; its replies are kept in the default store."""
    from iqa_checks.broker import open_asker

    asker = open_asker(model)
    try:
        yield asker
    except BaseException:
        asker.close(finished=False)
        raise
    asker.close(finished=True)
