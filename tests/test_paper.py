"""The paper's figures as gates: the right figure, and a test that keeps its error rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from iqa_checks.agreement import Correlation, cluster_mean, correlation
from iqa_checks.errors import UsageError
from iqa_checks.paper import PaperFigure, check_paper_model, paper_figure, paper_models


def test_every_figure_of_table_1_has_its_cell():
    """Four models, nine systems, seven sets; two of them read off the page."""
    assert paper_models() == ["llava-v1.6", "mplug-owl2", "internlm-xc2-vl", "gpt4v"]
    figure = paper_figure("gpt4v", "SPAQ", "double", "chain_of_thought")
    assert figure == PaperFigure("gpt4v", 0.881)
    assert str(figure) == "the paper's 0.881 of gpt4v"
    assert paper_figure("llava-v1.6", "FR-KADID", "single", "standard").srcc == 0.227
    found = [
        paper_figure(model, stimuli, protocol, strategy)
        for model in paper_models()
        for stimuli in ("FR-KADID", "Aug-KADID", "TQD", "SPCD", "NR-KADID", "SPAQ", "AGIQA-3K")
        for protocol in ("single", "double", "multiple")
        for strategy in ("standard", "in_context", "chain_of_thought")
    ]
    assert len(found) == 252
    assert all(0 < figure.srcc < 1 for figure in found)


@pytest.mark.parametrize(
    "asked",
    [("gpt4v", "builtin", "single", "standard"), ("gpt4v", "SPAQ", "single", "step_by_step")],
)
def test_a_cell_without_a_figure_has_none(asked):
    assert paper_figure(*asked) is None


def test_a_model_that_the_paper_did_not_ask():
    check_paper_model("gpt4v")
    with pytest.raises(UsageError, match=r"no figures of observer; name the model .*gpt4v"):
        check_paper_model("observer")


def test_pooled_test_is_the_two_sample_fisher_z():
    """Checked against the formula, both errors in it."""
    measured = Correlation(0.7, None, None, 0.95, 60, std_error=0.12, df=59)
    own = (1 + 0.8**2 / 2) / 147
    t = (np.arctanh(0.7) - np.arctanh(0.8)) / np.sqrt(0.12**2 + own)
    assert PaperFigure("m", 0.8).p_below(measured) == pytest.approx(stats.t.cdf(t, 59))
    assert PaperFigure("m", 0.7).p_below(measured) == pytest.approx(0.5)
    blunt = measured.p_below(0.8)
    assert PaperFigure("m", 0.8).p_below(measured) > blunt  # the figure is no exact threshold


def test_mean_over_references_is_a_two_sample_t_test():
    """Five references here, fifteen in the paper, one spread."""
    measured = Correlation(0.5, None, None, 0.95, 50, 5, 0.08, 4, "identity")
    spread = 0.08 * np.sqrt(5)
    t = (0.5 - 0.7) / (spread * np.sqrt(1 / 5 + 1 / 15))
    assert PaperFigure("m", 0.7).p_below(measured) == pytest.approx(stats.t.cdf(t, 4))


def test_without_a_standard_error_there_is_no_test():
    assert PaperFigure("m", 0.7).p_below(Correlation(0.5, None, None, 0.95, 3)) is None
    assert PaperFigure("m", 0.7).p_below(Correlation(None, None, None, 0.95, 9)) is None


def pooled_pair(rng: np.random.Generator, r: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    y = rng.standard_normal(n)
    return r * y + np.sqrt(1 - r * r) * rng.standard_normal(n), y


@pytest.mark.parametrize("n", [30, 150])
def test_false_alarms_of_the_pooled_gate(n):
    """The same model measured again fails one time in twenty (5 sigma); a bare one, far more."""
    rng = np.random.default_rng(n)
    alarms = bare = 0
    for _ in range(400):
        published = stats.spearmanr(*pooled_pair(rng, 0.8, 150)).statistic
        measured = correlation(*pooled_pair(rng, 0.8, n))
        alarms += PaperFigure("m", round(published, 3)).p_below(measured) < 0.05
        bare += measured.value < published
    assert alarms / 400 == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95 / 400))
    assert bare / 400 > 0.3


@pytest.mark.parametrize("n_references", [5, 15])
def test_false_alarms_of_the_gate_over_references(n_references):
    """References differ in difficulty, in the paper's sample as in ours."""
    rng = np.random.default_rng(n_references)

    def sample(n: int) -> Correlation:
        group = np.repeat(np.arange(n), 10)
        y = rng.standard_normal(10 * n)
        x = 0.8 * y + 0.6 * rng.lognormal(0, 0.4, n)[group] * rng.standard_normal(10 * n)
        return cluster_mean(x, y, group)

    alarms = 0
    for _ in range(400):
        published = sample(15).value
        assert published is not None
        p = PaperFigure("m", published).p_below(sample(n_references))
        assert p is not None
        alarms += p < 0.05
    assert alarms / 400 == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95 / 400))
