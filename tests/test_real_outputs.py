"""Published figures of real models, metrics and observers come out of this package.

Needs the folder of rated data in ``IQA_CHECKS_RATED_DATA``; skipped where it is not set.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from iqa_checks.agreement import plcc, srcc
from tests.benchmarks import study_real_outputs as study

DATA = os.environ.get(study.DATA_VARIABLE)
pytestmark = pytest.mark.skipif(not DATA, reason=f"{study.DATA_VARIABLE} is not set")


@pytest.fixture(scope="module")
def data() -> Path:
    return Path(str(DATA))


def test_qbench_correlations_within_003(data: Path) -> None:
    rows = list(study.qbench(data / "qbench"))
    assert len(rows) >= 68
    assert {r.name: r for r in rows if not r.error <= 0.003} == {}


def test_crossval_correlations_to_three_decimals(data: Path) -> None:
    rows = list(study.crossval(data / "score_tables" / "vqmt_crossval"))
    assert len(rows) == 54
    assert {(r.name, r.statistic): r for r in rows if round(r.ours, 3) != r.published} == {}


@pytest.mark.parametrize(
    ("method", "least_srcc", "least_plcc"), [("BTC", 0.98, 0.96), ("PTC", 0.89, 0.95)]
)
def test_jpeg_aic_scale_follows_the_published_jnd_of_each_source(
    data: Path, method: str, least_srcc: float, least_plcc: float
) -> None:
    sources = study.jpeg_aic(data / "pairwise" / "jpeg_aic", method, only_jpeg_ai=True)
    assert len(sources) == 5
    for source in sources:
        assert source.scale.converged
        assert source.scale.n_components == 1
        assert srcc(source.ours, source.published) >= least_srcc
        assert plcc(source.ours, source.published, mapping="none") >= least_plcc


def test_bapps_two_alternative_scores(data: Path) -> None:
    rows = list(study.bapps(data / "pairwise" / "bapps_val_2afc"))
    assert sum(r.n for r in rows) == 36_344
    for row in rows:
        assert row.largest_error == pytest.approx(0, abs=1e-6)
        assert round(row.mean, 2) == row.published


def test_pwcmp_studies_have_a_scale_each(data: Path) -> None:
    found = list(study.pwcmp(data / "pairwise" / "pwcmp"))
    assert sum(judgements for _, _, judgements, _ in found) == 1_213 + 26_580
    for _, _, _, scale in found:
        assert scale.converged
        assert scale.n_components == 1
        assert np.all(np.isfinite(scale.scores))
        assert abs(np.sum(scale.scores)) < 1e-9
