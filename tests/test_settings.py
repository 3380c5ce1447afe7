"""Options of a run: what is refused before anything is collected, and what identifies a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iqa_checks.datasets import StimulusSource
from iqa_checks.errors import IqaChecksError, StimulusError, UsageError
from iqa_checks.settings import Settings, check


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
