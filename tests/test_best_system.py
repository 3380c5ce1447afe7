"""Which prompting system stands beside the experts, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iqa_checks.baseline import dumped
from iqa_checks.best_system import DEFAULT, best_system
from iqa_checks.datasets import StimulusSource
from iqa_checks.errors import UsageError
from iqa_checks.report.row import Interval
from iqa_checks.settings import Settings
from tests.saved_runs import saved_cell, saved_run


@pytest.fixture
def settings(tmp_path):
    return Settings("observer", StimulusSource(tmp_path))


@pytest.fixture
def stored(tmp_path):
    """Writes a run with given SRCCs by (protocol, strategy, stimuli)."""
    row, record = saved_cell(list(range(12)), list(range(12)))

    def write(found: dict[tuple[str, str, str], float | None], **changes: object):
        rows = [
            replace(
                row,
                cell=f"nr-{protocol}-{strategy}-{stimuli}",
                protocol=protocol,
                strategy=strategy,
                stimuli=stimuli,
                srcc=Interval(value, None, None, None),
                **{"model": "observer", **changes},
            )
            for (protocol, strategy, stimuli), value in found.items()
        ]
        path = tmp_path / "results.json"
        path.write_text(dumped(saved_run(*[(one, record) for one in rows])))
        return path

    return write


def test_of_a_stored_run_the_highest_mean_is_taken(settings, stored):
    """Over the sets that all systems saw: a single easy set decides nothing."""
    path = stored(
        {
            ("single", "standard", "a"): 0.6,
            ("single", "standard", "b"): 0.7,
            ("double", "standard", "a"): 0.8,
            ("double", "standard", "b"): 0.3,
            ("double", "standard", "easy"): 1.0,
        }
    )
    system = best_system(replace(settings, best=path))
    assert (system.protocol, system.strategy) == ("single", "standard")
    assert "mean SRCC 0.650 over 2 sets, the best of 2 systems in results.json" in system.why


def test_undefined_is_never_best(settings, stored):
    """Nor is it 0: the other one wins with a negative mean."""
    path = stored({("single", "standard", "a"): None, ("double", "standard", "a"): -0.1})
    assert best_system(replace(settings, best=path)).protocol == "double"
    path = stored({("multiple", "standard", "a"): None})
    with pytest.raises(UsageError, match="no prompting system of observer has a defined SRCC"):
        _fresh(replace(settings, best=path))


def _fresh(settings):
    """As `best_system`, of a file that changed since it was read."""
    from iqa_checks import best_system as module

    module._read.cache_clear()
    return best_system(settings)


@pytest.mark.parametrize("changes", [{"model": "gpt-4o"}, {"selection": "difficult"}])
def test_a_run_of_something_else_is_refused(settings, stored, changes):
    """Another model's best system says nothing, nor do difficult samples themselves."""
    path = stored({("single", "standard", "a"): 0.5}, **changes)
    with pytest.raises(UsageError, match="no cell of observer on uniform samples in it, but of"):
        best_system(replace(settings, best=path))


def test_a_file_that_is_no_run_is_refused(settings, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for name, said in (
        ("x.json", "is not a run saved by iqa_checks"),
        ("y.json", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=said):
            best_system(replace(settings, best=tmp_path / name))


def test_a_strategy_that_is_not_known_here_is_refused(settings, stored):
    path = stored({("single", "mine", "a"): 0.5})
    with pytest.raises(UsageError, match=r"unknown strategy .*--iqa-strategies FILE.* 'mine'"):
        best_system(replace(settings, best=path))


def test_without_a_run_the_papers_best_and_it_is_said(settings, monkeypatch):
    """The line of models.yaml, or a default that is called one."""
    system = best_system(settings)
    assert (system.protocol, system.strategy) == DEFAULT
    assert "for want of a better" in system.why
    from iqa_checks import models

    spec = replace(models.find_model("gpt-4o-mini"), best=("single", "standard"))
    monkeypatch.setattr(models, "find_model", lambda _name: spec)
    system = best_system(settings)
    assert str(system) == "single-stimulus, standard"
    assert "the paper's best for observer" in system.why
