"""SRCC and PLCC by preset: those of `iqa_checks.agreement`, put together in one place."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_checks.agreement import cluster_mean, correlation
from iqa_checks.summary_statistics import summarise


@pytest.fixture
def scored():
    """Scores, human quality and references of 40 stimuli, ten a reference."""
    draw = np.random.default_rng(0)
    quality = draw.uniform(0, 100, 40)
    references = np.array([f"r{k // 10}" for k in range(40)])
    return quality + draw.normal(0, 30, 40), quality, references


def test_without_references_all_stimuli_count_at_once(scored):
    """The headline is the pooled SRCC."""
    scores, quality, _ = scored
    shown = summarise(scores, quality, None, "sound")
    assert shown.srcc == shown.srcc_pooled == correlation(scores, quality)
    assert shown.plcc == correlation(scores, quality, statistic="plcc")


def test_with_references_the_headline_is_their_mean(scored):
    """And the PLCC's interval resamples references."""
    scores, quality, references = scored
    shown = summarise(scores, quality, references, "sound")
    assert shown.srcc == cluster_mean(scores, quality, references)
    assert shown.srcc_pooled == correlation(scores, quality, cluster=references)
    assert shown.plcc == correlation(scores, quality, statistic="plcc", cluster=references)


def test_paper_counts_a_reference_without_a_correlation_as_0(scored):
    """Both figures are means over references, after a logistic of free sign."""
    scores, quality, references = scored
    scores = np.where(references == "r0", 5.0, scores)
    shown = summarise(scores, quality, references, "paper")
    for found, statistic in ((shown.srcc, "srcc_after_logistic"), (shown.plcc, "plcc")):
        expected = cluster_mean(
            scores, quality, references, statistic=statistic, direction="free", undefined="zero"
        )
        assert found == expected
    assert summarise(scores, quality, references, "sound").srcc.n_clusters == 3


def test_scores_that_are_not_finite_are_refused(scored):
    """nan never enters a statistic."""
    scores, quality, _ = scored
    scores[3] = np.nan
    with pytest.raises(ValueError, match="scores must be finite, got nan at index 3"):
        summarise(scores, quality, None, "sound")
