"""Expert metrics as rivals of MLLMs: their rows of the paper's Tables 2 and 3.

What is not at hand (weights, a package, a data set) is said in one line and leaves its place
empty; nothing else is put there.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.datasets import BY_CIEDE2000, check_at_hand, stimuli_for
from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError
from iqa_checks.experts import find_expert, score_stimuli
from iqa_checks.experts.weights import WeightFile, find_all
from iqa_checks.features import find_embedder
from iqa_checks.report.difficult import Measured
from iqa_checks.report.expert_tables import ExpertRow, expert_row

if TYPE_CHECKING:
    from iqa_checks.prompts import Scenario
    from iqa_checks.settings import Settings
    from iqa_checks.stimuli import StimulusSet

# The paper's, in its order, among those that need no weights and fit the scenario.
RIVALS: dict[Scenario, tuple[str, ...]] = {
    "fr": ("psnr", "ssim", "gmsd", "fsim", "lpips", "ahiq", "dists"),
    "difference": ("psnr", "ssim", "fsim", "ciede2000", "lpips", "ahiq", "dists"),
    "nr": ("piqe", "niqe", "musiq", "maniqa", "liqe_mix"),
}


def measure_experts(name: str, scenario: Scenario, settings: Settings) -> Measured:
    """All rivals of a set on its difficult samples, each image measured once, ever.

    Raises `UsageError` or `StimulusError` where the samples cannot be selected; an expert that
    fails on them is one of the ``failures``.
    """
    absent: list[str] = []
    try:
        check_at_hand(name, settings.source)
        experts = rivals_of(name, scenario, settings)
        lacking = {e: why for e in experts if (why := absence(e, settings.choosing.weights))}
        absent += lacking.values()
        stimuli = difficult_samples(name, scenario, settings)
    except StimuliAbsent as error:
        lines = dict.fromkeys((*absent, *str(error).splitlines()))
        return Measured(scenario, name, absent=tuple(lines))
    rows, failures = [], []
    for expert in experts:
        if expert in lacking:
            continue
        try:
            rows.append(_row(expert, stimuli, scenario, settings))
        except (UsageError, StimulusError) as error:
            failures.append(f"expert {expert} on {name}: {error}")
    return Measured(
        scenario, name, tuple(rows), tuple(absent), tuple(failures), tuple(stimuli.notes)
    )


def rivals_of(name: str, scenario: Scenario, settings: Settings) -> tuple[str, ...]:
    """``--iqa-rivals`` that fit the scenario; else `RIVALS`, and the experts that select."""
    chosen = settings.rivals
    if not chosen:
        usual = (e for e in RIVALS[scenario] if e != "ciede2000" or name not in BY_CIEDE2000)
        chosen = (*usual, *settings.choosing.experts_of(name, scenario))
    fitting = (e for e in chosen if scenario != "nr" or find_expert(e).reference == "none")
    return tuple(dict.fromkeys(fitting))


def difficult_samples(name: str, scenario: Scenario, settings: Settings) -> StimulusSet:
    """The difficult samples of a set.

    Raises
    ------
    StimuliAbsent
        The set is not at hand, or what selects its samples is not (a line for each), or the
        set's usual experts cannot select from it.
    UsageError, StimulusError
        As `iqa_checks.datasets.stimuli_for`.
    """
    check_at_hand(name, settings.source)
    how = settings.choosing
    lacking = {e: absence(e, how.weights) for e in how.experts_of(name, scenario)}
    if embedder := how.embedder_of(name):
        lacking[embedder] = absence_of_embedder(embedder, how.weights)
    lacking = {who: why for who, why in lacking.items() if why}
    if lacking:
        what = (
            f"{name}: its difficult samples cannot be selected without {' and '.join(lacking)}; "
            "get them, or choose with --iqa-experts A,B and --iqa-embedder offline"
        )
        raise StimuliAbsent("\n".join([what, *lacking.values()]))
    try:
        return stimuli_for(name, scenario, settings.on_difficult_samples)
    except UsageError as error:
        if how.experts:
            raise
        raise StimuliAbsent(
            f"{name}: its difficult samples cannot be selected by its usual experts: {error}; "
            "name others with --iqa-experts A,B"
        ) from None


def absence(expert: str, weights_dir: Path | None) -> str:
    """What of an expert is not on this machine, its size and where it goes; '' where nothing is."""
    found = find_expert(expert)
    return _absence(f"expert {expert}", found.package, found.weights, weights_dir)


def absence_of_embedder(embedder: str, weights_dir: Path | None) -> str:
    """As `absence`."""
    found = find_embedder(embedder)
    return _absence(f"embedder {embedder}", found.package, found.weights, weights_dir)


def check_named(experts: Iterable[str], embedder: str, weights_dir: Path | None) -> None:
    """`UsageError` where what was asked for by name is unknown or not at hand."""
    for expert in experts:
        find_all(find_expert(expert).weights, weights_dir, who=f"expert {expert}")
        if why := absence(expert, weights_dir):
            raise UsageError(why)
    if embedder:
        find_all(find_embedder(embedder).weights, weights_dir, who=f"embedder {embedder}")
        if why := absence_of_embedder(embedder, weights_dir):
            raise UsageError(why)


def _absence(
    who: str, package: str, weights: Iterable[WeightFile], weights_dir: Path | None
) -> str:
    try:
        version(package)
    except PackageNotFoundError:
        return f"{who} needs the package {package}: pip install 'iqa_checks[experts]'"
    files = [file for file in weights if file.find(weights_dir) is None]
    if not files:
        return ""
    listed = " and ".join(f"{str(file).removesuffix(')')}; {file.source})" for file in files)
    return (
        f"{who} lacks its weights: put {listed} into {weights_dir or 'the folder of --iqa-weights'}"
    )


def _row(expert: str, stimuli: StimulusSet, scenario: Scenario, settings: Settings) -> ExpertRow:
    import numpy as np

    how = settings.choosing
    scores = score_stimuli(
        stimuli,
        expert,
        cache_dir=settings.source.cache_dir,
        weights_dir=how.weights,
        device=how.device,
        ray_address=how.ray_address,
    )
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        worst = stimuli.stimuli[int(bad[0])].path
        raise UsageError(f"{len(bad)} of {len(scores)} scores are not finite, {worst} the first")
    trained = stimuli.name in find_expert(expert).trained_on
    return expert_row(expert, stimuli, scenario, scores, trained=trained, preset=settings.preset)
