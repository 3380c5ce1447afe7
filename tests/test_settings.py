"""Options of a run: what is refused before anything is collected, and what identifies a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iqa_checks.cell import Cell
from iqa_checks.datasets import StimulusSource
from iqa_checks.errors import IqaChecksError, StimulusError, UsageError
from iqa_checks.paper import PaperFigure
from iqa_checks.settings import Settings, check, read_price


@pytest.fixture
def settings(tmp_path):
    return Settings("observer", StimulusSource(tmp_path))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "gpt-99"}, "unknown model 'gpt-99'"),
        ({"model": "observer:noise=much"}, "much"),
        ({"min_srcc": 1.0}, "--iqa-min-srcc 1: expected a correlation"),
        ({"min_plcc": float("nan")}, "--iqa-min-plcc nan: expected a correlation"),
        ({"concurrency": 0}, "--iqa-concurrency 0: expected at least 1"),
        ({"repeats": 0}, "--iqa-repeats 0: expected at least 1"),
        ({"alpha": 0.0}, "--iqa-alpha 0: expected a rate between 0 and 1"),
        ({"alpha": 1.0}, "--iqa-alpha 1: expected a rate between 0 and 1"),
    ],
)
def test_faulty_option_is_a_usage_error(settings, changed, said):
    """One line that names the option, the value and what is expected."""
    with pytest.raises(UsageError, match=said) as caught:
        check(replace(settings, **changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": -1},
        {"model": "observer:loud=3"},
        {"model": "observer:noise=-1"},
        {"scaling": "elho"},
        {"max_unparsed": -0.1},
        {"max_unparsed": 1.5},
        {"timeout_s": 0.0},
        {"budget": -1},
    ],
)
def test_options_out_of_range_are_usage_errors_too(settings, changed):
    """A value that would end in a traceback, or that switches a gate off, later in the run."""
    with pytest.raises(UsageError):
        check(replace(settings, **changed))


def test_good_settings_pass(settings):
    """The defaults, and the ends of what is permitted."""
    check(settings)
    check(replace(settings, min_srcc=-0.99, min_plcc=0.99, alpha=0.001, repeats=5))
    check(replace(settings, model="observer:noise=5,lapse=0.1"))


def test_ratings_are_read_before_the_run(settings, tmp_path):
    """A faulty table ends the run at once, not in its cells."""
    path = tmp_path / "mine.csv"
    path.write_text("image,score\na.png,1\n")
    with pytest.raises(StimulusError, match=r"mine\.csv: no column 'mos'"):
        check(replace(settings, source=StimulusSource(tmp_path, ratings=path)))


def test_strategies_are_read_before_the_run(settings, tmp_path):
    """So is a faulty file of strategies."""
    path = tmp_path / "mine.yaml"
    path.write_text("a: 3")
    with pytest.raises(UsageError, match="strategy 'a' must read"):
        check(replace(settings, strategies=path))


def gated(settings, tmp_path, line, **changed):
    path = tmp_path / "gates.yaml"
    path.write_text(f"- {line}\n")
    return replace(settings, gates=path, **changed)


@pytest.mark.parametrize(
    ("line", "changed", "said"),
    [
        ("{max_cost_usd: 0.01}", {"model": "openai:mine"}, r"price of openai:mine .*--iqa-price"),
        ("{like_paper: true}", {"preset": "paper"}, "no figures of observer"),
        ("{like_paper: gpt4v}", {}, "--iqa-preset paper"),
    ],
)
def test_gates_that_this_model_cannot_have(settings, tmp_path, line, changed, said):
    """Before anything is collected; another model's line is not looked at."""
    with pytest.raises(UsageError, match=said) as caught:
        check(gated(settings, tmp_path, line, **changed))
    assert "\n" not in str(caught.value)
    other = line.replace("{", "{model: another, ")
    check(gated(settings, tmp_path, other, **changed))


def test_prices(settings, tmp_path):
    """One that is given counts, a registry's serves otherwise, and observers cost nothing."""
    line = "{max_cost_usd: 0.01}"
    check(gated(settings, tmp_path, line))
    check(gated(settings, tmp_path, line, model="gpt-4o"))
    given = gated(settings, tmp_path, line, model="openai:mine", price=read_price("0.5:2"))
    check(given)
    assert given.spec.price_per_million == (0.5, 2.0)
    with pytest.raises(UsageError, match="--iqa-price 3: expected PROMPT:REPLY"):
        read_price("3")
    for price in ((-1.0, 2.0), (float("nan"), 2.0), (float("inf"), 0.0)):
        with pytest.raises(UsageError, match="--iqa-price: expected prices of 0 or more"):
            check(replace(settings, price=price))


def test_gate_of_a_cell(settings, tmp_path, rated_set):
    """Repeats, price and the paper's figure come from the run; a set without a figure says so."""
    stimuli = rated_set([1.0, 2.0, 3.0, 4.0, 5.0])
    cell = Cell(replace(stimuli, name="SPAQ"), "nr", "double", preset="paper")
    with pytest.raises(UsageError, match="--iqa-repeats 3"):
        gated(settings, tmp_path, "{min_retest: 0.9}").gate(cell, 1)
    twice = gated(settings, tmp_path, "{min_retest: 0.9}").gate(replace(cell, repeats=2), 1)
    assert twice.min_retest == 0.9
    cost = gated(settings, tmp_path, "{max_cost_usd: 1}", model="gpt-4o").gate(cell, 1)
    assert cost.price_per_million == (2.5, 10.0)
    paper = gated(settings, tmp_path, "{like_paper: true}", model="gpt4v", preset="paper")
    gate = paper.gate(cell, 1)
    assert gate.paper == PaperFigure("gpt4v", 0.834)
    assert gate.remarks == ("the paper's gpt4v was gpt-4-vision-preview; gpt-4o is another model.",)
    absent = paper.gate(replace(cell, stimuli=stimuli), 1)
    assert absent.paper is None
    assert absent.remarks == (
        f"not held against the paper: no figure of gpt4v, double standard, on {stimuli.name}.",
    )
    difficult = paper.gate(replace(cell, selection="difficult"), 1)
    assert difficult.paper is None
    assert "on difficult samples of SPAQ" in difficult.remarks[0]
    with pytest.raises(UsageError, match="--iqa-preset paper"):
        paper.gate(replace(cell, preset="sound"), 1)


def test_identity_decides_what_is_resumed(settings):
    """Trials depend on seed, preset and repeats; a gate or the concurrency changes no trial."""
    other = [replace(settings, seed=1), replace(settings, preset="paper"),
             replace(settings, repeats=2)]  # fmt: skip
    assert len({s.identity for s in [settings, *other]}) == 4
    same = replace(settings, min_srcc=0.5, concurrency=2, strict=True, timeout_s=5.0)
    assert same.identity == settings.identity


def test_all_errors_are_one_family():
    """A caller catches one type."""
    assert issubclass(UsageError, IqaChecksError)
    assert issubclass(StimulusError, IqaChecksError)
