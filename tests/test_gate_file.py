"""Gates in YAML: what a line names, what it asks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_checks.builtin import BUILTIN
from iqa_checks.errors import UsageError
from iqa_checks.gate_file import limits_for, read_gates

KNOWN = {
    "stimuli": ["builtin", "builtin-color", "SPAQ"],
    "scenario": ("fr", "nr", "difference"),
    "protocol": ("single", "double", "multiple"),
    "strategy": ["standard", "in_context", "chain_of_thought"],
}
CELL = {
    "model": "gpt-4o", "stimuli": "SPAQ", "scenario": "nr",
    "protocol": "double", "strategy": "standard",
}  # fmt: skip


def gates(tmp_path: Path, text: str):
    path = tmp_path / "gates.yaml"
    path.write_text(text, encoding="utf-8")
    return read_gates(path, KNOWN)


def test_later_lines_decide_value_by_value(tmp_path):
    """A general line first, exceptions after it."""
    lines = gates(
        tmp_path,
        "- {min_srcc: 0.5, max_unparsed: 0.05}\n"
        "- {stimuli: SPAQ, protocol: double, min_srcc: 0.7}\n"
        "- {model: 'llava*', min_srcc: 0.9}\n",
    )
    assert limits_for(lines, CELL) == {"min_srcc": 0.7, "max_unparsed": 0.05}
    assert limits_for(lines, CELL | {"model": "llava-v1.6"})["min_srcc"] == 0.9


def test_manners_and_expected_failures_are_read(tmp_path):
    """Ties, order effects, time; and a reason for a failure."""
    (line,) = gates(
        tmp_path,
        "- {scenario: nr, max_tie_rate: 0.4, min_consistency: 0.7, max_latency_s: 30,"
        " min_retest: 0.9, max_cost_usd: 0.01, like_paper: gpt4v, xfail: not yet}\n",
    )
    assert limits_for([line], CELL) == {
        "max_tie_rate": 0.4, "min_consistency": 0.7, "max_latency_s": 30.0, "min_retest": 0.9,
        "max_cost_usd": 0.01, "like_paper": "gpt4v", "xfail": "not yet",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {stimuli: builtn, min_srcc: 0.5}", "no stimuli is called 'builtn'"),
        ("- {min_sroc: 0.5}", "unknown field in .*gate 1.*Did you mean 'min_srcc'"),
        ("- {min_srcc: high}", "min_srcc must be a number in -1..1, got 'high'"),
        ("- {min_srcc: 2}", "min_srcc must be a number"),
        ("- {max_unparsed: true}", "max_unparsed must be a number"),
        ("- {max_latency_s: .nan}", "max_latency_s must be a number"),
        ("- {scenario: nr}", "gate 1 asks nothing"),
        ("- {scenario: nr, xfail: 1}", "xfail says in words"),
        ("- {max_cost_usd: -1}", "max_cost_usd must be a number in 0..inf"),
        ("- {like_paper: gpt5}", "like_paper is true .* or one of .*llava-v1.6.*got 'gpt5'"),
        ("- {like_paper: [1]}", "like_paper is true"),
        ("min_srcc: 0.5", "expected a list of gates, got dict"),
        ("- 0.5", "expected {selector: pattern, limit: value}"),
        ("- {a: [", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, said):
    """A misspelt gate must not pass for a kept one."""
    with pytest.raises(UsageError, match=said) as caught:
        gates(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_absent_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_gates(tmp_path / "none.yaml", KNOWN)


def test_gates_of_the_repository_are_readable():
    """Those in fixtures/gates name what exists."""
    folder = Path(__file__).parents[1] / "fixtures/gates"
    paths = list(folder.glob("*.yaml"))
    assert paths
    sets = [name for names in BUILTIN.values() for name in names]
    known = {**KNOWN, "stimuli": [*KNOWN["stimuli"], *sets]}
    assert all(read_gates(path, known) for path in paths)
