"""Test-retest reliability: what a model answers when it is asked the very same thing again.

Takes judgements and knows nothing of images or models. A question is one presentation: the same
stimuli in the same order. Unusable replies are left out, and so are questions with fewer than two
usable answers.

Sources: Shrout and Fleiss 1979 (one-way intraclass correlation, unequal group sizes as in Searle's
n0); Scott 1955 (pi: agreement beyond chance with pooled margins).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from iqa_checks.protocols import Judgement, Preference, Ranking, Rating, Trial


@dataclass(frozen=True, slots=True)
class Retest:
    """Reliability of one answer, None where it is undefined.

    ``value`` is the intraclass correlation ICC(1, 1) of ratings (at most 1; below 0 where repeats
    differ more than stimuli do), or the share of pairs of repeats that give the same answer, in
    0..1: for rankings of the same answers about two of their stimuli. ``kappa`` is that share
    beyond chance (Scott's pi); None for ratings, and where all answers are the same one, since
    whoever always says "first" agrees with himself without having looked.
    """

    value: float | None
    kappa: float | None = None


def retest(trials: Sequence[Trial], judgements: Sequence[Judgement]) -> Retest:
    """Reliability over all questions that were answered at least twice."""
    ratings: dict[tuple[int, ...], list[float]] = {}
    answers: dict[tuple[object, ...], list[str]] = {}
    for trial, judgement in zip(trials, judgements, strict=True):
        if isinstance(judgement, Rating):
            ratings.setdefault(trial.stimuli, []).append(judgement.score)
        elif isinstance(judgement, Preference):
            answers.setdefault(trial.stimuli, []).append(judgement.choice)
        elif isinstance(judgement, Ranking):
            for i, j in itertools.combinations(range(len(judgement.ranks)), 2):
                first, second = judgement.ranks[i], judgement.ranks[j]
                said = "tie" if first == second else "first" if first > second else "second"
                answers.setdefault((trial.stimuli, i, j), []).append(said)
    if ratings:
        return Retest(intraclass_correlation(list(ratings.values())))
    return agreement_share(list(answers.values()))


def intraclass_correlation(groups: Sequence[Sequence[float]]) -> float | None:
    """ICC(1, 1) of one rating per repeat; None with fewer than two groups, or without spread."""
    used = [group for group in groups if len(group) > 1]
    total = sum(map(len, used))
    if len(used) < 2:
        return None
    means = [sum(group) / len(group) for group in used]
    grand = sum(sum(group) for group in used) / total
    between = sum(len(g) * (m - grand) ** 2 for g, m in zip(used, means, strict=True))
    within = sum((x - m) ** 2 for g, m in zip(used, means, strict=True) for x in g)
    mean_between, mean_within = between / (len(used) - 1), within / (total - len(used))
    size = (total - sum(len(g) ** 2 for g in used) / total) / (len(used) - 1)
    spread = mean_between + (size - 1) * mean_within
    return (mean_between - mean_within) / spread if spread > 0 else None


def agreement_share(groups: Sequence[Sequence[str]]) -> Retest:
    """Share of pairs of repeats with the same answer; each question counts once."""
    used = [group for group in groups if len(group) > 1]
    if not used:
        return Retest(None)
    shares, margins = [], Counter[str]()
    for group in used:
        pairs = list(itertools.combinations(group, 2))
        shares.append(sum(a == b for a, b in pairs) / len(pairs))
        margins.update(group)
    share, total = sum(shares) / len(shares), margins.total()
    chance = sum((count / total) ** 2 for count in margins.values())
    return Retest(share, (share - chance) / (1 - chance) if len(margins) > 1 else None)
