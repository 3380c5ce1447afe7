"""Uniform selection and exemplars: positions over scores, whatever the order of the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.selection import select_exemplars, select_uniform, select_uniform_by_reference

SCORES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=60)


def names(n: int) -> list[str]:
    return [f"{(7919 * k) % 10007:05d}" for k in range(n)]


def test_uniform_takes_equal_steps_of_rank():
    """101 ranks, five picks: every 25th, both ends included, in input order."""
    mos = np.linspace(100, 0, 101)
    assert select_uniform(mos, 5, names(101)).tolist() == [0, 25, 50, 75, 100]
    skewed = np.linspace(0, 1, 101) ** 9
    assert select_uniform(skewed, 5, names(101)).tolist() == [0, 25, 50, 75, 100]


@given(SCORES, st.integers(1, 70))
def test_uniform_is_distinct_sorted_and_keeps_the_ends(scores, n):
    """min(n, M) positions; from two on, the lowest and the highest score are among them."""
    mos = np.array(scores)
    picks = select_uniform(mos, n, names(len(mos)))
    assert len(set(picks.tolist())) == len(picks) == min(n, len(mos))
    assert np.all(np.diff(picks) > 0)
    if n >= 2 and len(mos) >= 2:
        assert {mos[picks].min(), mos[picks].max()} == {mos.min(), mos.max()}


@given(SCORES, st.integers(1, 20), st.randoms(use_true_random=False))
def test_uniform_does_not_depend_on_file_order(scores, n, random):
    """The same stimuli are picked from a shuffled table, ties included."""
    keys = names(len(scores))
    order = list(range(len(scores)))
    random.shuffle(order)
    first = {keys[k] for k in select_uniform(np.array(scores), n, keys)}
    shuffled = np.array(scores)[order]
    second = {keys[order[k]] for k in select_uniform(shuffled, n, [keys[k] for k in order])}
    assert first == second


def test_uniform_by_reference_takes_as_many_of_each():
    """Three of each of four references; ends of each reference included."""
    references = [f"r{k % 6}" for k in range(60)]
    mos = np.arange(60.0)
    picks = select_uniform_by_reference(mos, references, 4, 3, names(60), seed=1)
    chosen = {references[k] for k in picks}
    assert len(picks) == 12
    assert len(chosen) == 4
    for reference in chosen:
        inside = mos[[k for k in picks if references[k] == reference]]
        whole = mos[[k for k in range(60) if references[k] == reference]]
        assert (inside.min(), inside.max()) == (whole.min(), whole.max())


def test_references_are_drawn_by_seed():
    """The same seed the same references, in any table order; other seeds others."""
    references = [f"r{k}" for k in range(20) for _ in range(3)]
    mos = np.tile([1.0, 2.0, 3.0], 20)

    def drawn(seed: int, flip: int = 1) -> set[str]:
        picks = select_uniform_by_reference(
            mos[::flip], references[::flip], 5, 2, names(60)[::flip], seed=seed
        )
        return {references[::flip][k] for k in picks}

    assert drawn(1) == drawn(1, flip=-1)
    assert len({frozenset(drawn(seed)) for seed in range(6)}) > 3
    whole = select_uniform_by_reference(mos, references, 99, 3, names(60), seed=0)
    assert len(whole) == 60


@given(st.lists(st.floats(0, 100), min_size=8, max_size=40), st.integers(0, 1000))
def test_exemplars_are_distinct_and_off_the_ends(scores, seed):
    """Four of the inner ranks: an exemplar leaves room on both sides."""
    mos = np.array(scores)
    picks = select_exemplars(mos, 4, seed=seed)
    assert len(set(picks.tolist())) == 4
    order = np.argsort(mos, kind="stable")
    assert not {order[0], order[-1]} & set(picks.tolist())
    assert set(picks.tolist()) == set(select_exemplars(mos, 4, seed=seed + 1).tolist())


def test_exemplars_are_shuffled():
    """An order from worst to best would tell a model where to put its answer."""
    mos = np.arange(20.0)
    orders = {tuple(np.argsort(mos[select_exemplars(mos, 4, seed=s)])) for s in range(40)}
    assert len(orders) > 12
    assert tuple(select_exemplars(mos, 4, seed=3)) == tuple(select_exemplars(mos, 4, seed=3))


@pytest.mark.parametrize("n", [2, 4, 8])
def test_exemplars_stand_at_equal_steps(n):
    """In the middle of n equal parts of the ranks."""
    picks = sorted(select_exemplars(np.arange(81.0), n, seed=0))
    assert picks == pytest.approx([80 * (k + 0.5) / n for k in range(n)], abs=0.5)
