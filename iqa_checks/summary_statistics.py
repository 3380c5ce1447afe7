"""The figures that a table shows of one set of scores: SRCC and PLCC as the preset defines them.

A cell and an expert metric are summarised here alike, so that their rows may stand in one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iqa_checks.agreement import Correlation, Direction, Statistic, cluster_mean, correlation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqa_checks.protocols import Preset


@dataclass(frozen=True, slots=True)
class SummaryStatistics:
    """``srcc`` is the headline: the mean over references (FR), else ``srcc_pooled``."""

    srcc: Correlation
    srcc_pooled: Correlation
    plcc: Correlation


def rank_statistic(preset: Preset) -> Statistic:
    """Which SRCC: of the scores, or as the released code has it, of their logistic fit."""
    return "srcc_after_logistic" if preset == "paper" else "srcc"


def fit_direction(preset: Preset) -> Direction:
    """Which way the logistic before a PLCC may run."""
    return "free" if preset == "paper" else "increasing"


def summarise(
    scores: NDArray[np.float64],
    quality: NDArray[np.float64],
    references: Sequence[str] | NDArray[np.str_] | None,
    preset: Preset,
) -> SummaryStatistics:
    """SRCC and PLCC of finite scores with human quality, both shape (M,).

    ``references`` are given for full-reference stimuli only: they are what intervals resample.
    ``paper`` repeats the released code: SRCC after a logistic of free sign, and for FR the mean
    over references of both, with an undefined one as 0.

    Raises ValueError for arrays that differ in length or hold a value that is not finite.
    """
    paper, direction = preset == "paper", fit_direction(preset)
    statistic = rank_statistic(preset)
    pooled = correlation(scores, quality, statistic=statistic, cluster=references)
    if references is None:
        plcc = correlation(scores, quality, statistic="plcc", direction=direction)
        return SummaryStatistics(pooled, pooled, plcc)
    srcc = cluster_mean(
        scores, quality, references, statistic=statistic, undefined="zero" if paper else "exclude"
    )
    if paper:
        plcc = cluster_mean(
            scores, quality, references, statistic="plcc", direction=direction, undefined="zero"
        )
    else:
        plcc = correlation(
            scores, quality, statistic="plcc", direction=direction, cluster=references
        )
    return SummaryStatistics(srcc, pooled, plcc)
