"""Designs: which trials are asked, in which order, and what they may depend on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from iqa_checks.errors import DesignError
from iqa_checks.protocols import (
    PAIR_BUDGET,
    ROUND_ROBIN_LIMIT,
    SWISS_ROUNDS,
    Preference,
    Rating,
    Trial,
    Unparsed,
    double_stimulus,
    double_stimulus_paper,
    multiple_stimulus,
    multiple_stimulus_paper,
    repeated,
    rng,
    single_stimulus,
)
from iqa_checks.scaling import Comparisons, thurstone_map

SEEDS = st.integers(0, 2**32)
GROUP_SIZES = st.lists(st.integers(2, 15), min_size=1, max_size=4)


def run(design, judge: Callable[[Trial], object] = lambda _: Unparsed("")) -> list[list[Trial]]:
    """All rounds of a design whose trials are judged one by one."""
    rounds = []
    try:
        rounds.append(next(design))
        while True:
            rounds.append(design.send([judge(trial) for trial in rounds[-1]]))
    except StopIteration:
        return rounds


def flat(rounds: Sequence[list[Trial]]) -> list[Trial]:
    return [trial for trials in rounds for trial in trials]


def groups_of(sizes: Sequence[int]) -> list[str]:
    return [f"reference {k}" for k, size in enumerate(sizes) for _ in range(size)]


def hashes_of(n: int, salt: int = 0) -> list[str]:
    return [f"{rng(salt, i).integers(2**60):016x}" for i in range(n)]


def won(trials: Sequence[Trial], answers: Sequence[object], n: int) -> np.ndarray:
    """A simple scale: wins less losses."""
    score = np.zeros(n)
    for trial, answer in zip(trials, answers, strict=True):
        if isinstance(answer, Preference) and answer.choice != "comparable":
            sign = 1 if answer.choice == "first" else -1
            score[trial.stimuli[0]] += sign
            score[trial.stimuli[1]] -= sign
    return score


def by_worth(worth: Sequence[float]) -> Callable[[Trial], Preference]:
    """The stimulus of greater worth wins, whatever the order."""
    return lambda t: Preference("first" if worth[t.stimuli[0]] > worth[t.stimuli[1]] else "second")


def doubles(groups: Sequence[str], seed: int, worth: Sequence[float] | None = None):
    """Rounds of the sound double-stimulus design with a perfect observer."""
    n = len(groups)
    worth = range(n) if worth is None else worth
    design = double_stimulus(hashes_of(n), groups, lambda t, a: won(t, a, n), seed=seed)
    return run(design, by_worth(worth))


def pair(trial: Trial) -> frozenset[int]:
    return frozenset(trial.stimuli)


@pytest.mark.parametrize("n", [1, 7])
def test_single_stimulus_asks_each_once(n):
    """One round, one trial per stimulus."""
    assert run(single_stimulus(n)) == [[Trial((i,)) for i in range(n)]]


@given(GROUP_SIZES, SEEDS)
def test_trials_are_distinct_stimuli_of_one_reference(sizes, seed):
    """No design compares a stimulus with itself or across references, or asks a question twice."""
    groups = groups_of(sizes)
    n, hashes = len(groups), hashes_of(len(groups))
    designs = [
        doubles(groups, seed),
        run(multiple_stimulus(hashes, groups, seed=seed)),
        run(double_stimulus_paper(n, groups, seed=seed)),
        run(multiple_stimulus_paper(n, groups, seed=seed)),
    ]
    for rounds in designs:
        trials = flat(rounds)
        assert all(len(set(t.stimuli)) == len(t.stimuli) >= 2 for t in trials)
        assert all(len({groups[i] for i in t.stimuli}) == 1 for t in trials)
        assert {i for t in trials for i in t.stimuli} == set(range(n))
        assert len(set(trials)) == len(trials)


@given(st.lists(st.integers(2, ROUND_ROBIN_LIMIT), min_size=1, max_size=5), SEEDS)
def test_round_robin_asks_every_pair_once(sizes, seed):
    """Up to 11 stimuli a reference: each pair once, the audited ones in the other order too."""
    groups = groups_of(sizes)
    (trials,) = doubles(groups, seed)
    asked = Counter(map(pair, trials))
    same = {
        frozenset(p) for p in itertools.combinations(range(len(groups)), 2)
        if groups[p[0]] == groups[p[1]]
    }  # fmt: skip
    assert set(asked) == same
    assert max(asked.values()) <= 2
    ordered = {t.stimuli for t in trials}
    assert all((t.stimuli[::-1] in ordered) == (asked[pair(t)] == 2) for t in trials)


def test_a_tenth_of_the_pairs_is_audited_and_orders_are_balanced():
    """Over 2,000 pairs: the audit's share is a tenth, and half go lower hash first (5 sigma)."""
    groups = groups_of([11] * 40)
    (trials,) = doubles(groups, 3)
    asked = Counter(map(pair, trials))
    assert len(asked) == 40 * 55
    share = sum(count == 2 for count in asked.values()) / len(asked)
    assert abs(share - 0.1016) < 5 * np.sqrt(0.1 * 0.9 / len(asked))
    hashes = hashes_of(len(groups))
    fresh = trials[: len(asked)]
    low_first = np.mean([hashes[t.stimuli[0]] < hashes[t.stimuli[1]] for t in fresh])
    assert abs(low_first - 0.5) < 5 * 0.5 / np.sqrt(len(fresh))


def test_order_of_a_pair_depends_on_seed_and_the_pair_alone():
    """The same pair stands in the same order whatever else is in the set."""
    few, many = doubles(groups_of([8]), 1)[0], doubles(groups_of([11]), 1)[0]
    assert {t.stimuli for t in few} <= {t.stimuli for t in many}
    other = doubles(groups_of([11]), 2)[0]
    assert {t.stimuli for t in other} != {t.stimuli for t in many}


@given(st.integers(ROUND_ROBIN_LIMIT + 1, 60), SEEDS)
@settings(max_examples=25)
def test_swiss_rounds_are_matchings_that_never_repeat(m, seed):
    """Per round each stimulus meets one other; no pair meets twice; one sits out when M is odd."""
    rounds = doubles(groups_of([m]), seed)
    assert len(rounds) == SWISS_ROUNDS
    met: set[frozenset[int]] = set()
    for trials in rounds:
        fresh = set(map(pair, trials))
        assert not fresh & met
        assert all(count == 1 for count in Counter(i for p in fresh for i in p).values())
        assert max(Counter(map(pair, trials)).values()) <= 2
        met |= fresh
    assert len(rounds[0]) >= m // 2


@pytest.mark.parametrize("m", [40, 75, 150])
def test_swiss_keeps_to_the_budget(m):
    """5M queries, the audit's included, give or take a twentieth; nobody sits out much."""
    rounds = doubles(groups_of([m]), 5)
    trials = flat(rounds)
    assert abs(len(trials) - PAIR_BUDGET * m) <= 0.05 * PAIR_BUDGET * m
    fresh = {pair(t) for t in trials}
    meetings = Counter(i for p in fresh for i in p)
    assert min(meetings.values()) >= SWISS_ROUNDS - 3  # the last ones left may all have met
    assert np.mean(list(meetings.values())) >= 0.98 * SWISS_ROUNDS
    assert max(meetings.values()) <= SWISS_ROUNDS


def test_swiss_pairs_neighbours_on_the_scale():
    """After some rounds a perfect observer's pairs are closer than random ones."""
    rounds = doubles(groups_of([60]), 1)
    gaps = [np.mean([abs(t.stimuli[0] - t.stimuli[1]) for t in trials]) for trials in rounds]
    assert gaps[0] > 14  # 20 expected
    assert gaps[-1] < gaps[0] / 2


@given(st.sampled_from([[13], [20], [5, 14], [11, 3]]), SEEDS, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_designs_do_not_depend_on_file_order(sizes, seed, random):
    """Permuting the stimuli permutes the trials, round by round."""
    groups = groups_of(sizes)
    n, hashes = len(groups), hashes_of(len(groups))
    order = list(range(n))
    random.shuffle(order)  # place k holds the stimulus order[k]

    def asked(order: Sequence[int], make) -> list[set[tuple[str, ...]]]:
        there_hashes = [hashes[i] for i in order]
        design = make(there_hashes, [groups[i] for i in order])
        rounds = run(design, by_worth([float(i) for i in order]))
        return [{tuple(there_hashes[i] for i in t.stimuli) for t in trials} for trials in rounds]

    def double(h, g):
        return double_stimulus(h, g, lambda t, a: won(t, a, n), seed=seed)

    def multiple(h, g):
        return multiple_stimulus(h, g, seed=seed)

    for make in (double, multiple):
        assert asked(order, make) == asked(range(n), make)


def test_swiss_depends_on_judgements_and_on_nothing_else():
    """The same answers give the same design; other answers give other pairs from round two on."""
    groups = groups_of([30])
    first, again = doubles(groups, 1), doubles(groups, 1)
    assert first == again
    reversed_ = doubles(groups, 1, worth=range(0, -30, -1))
    assert reversed_[0] == first[0]
    other = doubles(groups, 1, worth=np.random.default_rng(0).permutation(30))
    assert other[0] == first[0]
    assert other[2] != first[2]


def test_swiss_ignores_noise_of_the_solver():
    """Scores that differ by less than 1e-6 tie, and hashes settle ties."""
    groups, n = groups_of([30]), 30

    def design(noise: float):
        draw = np.random.default_rng(int(noise * 1e12))
        return run(
            double_stimulus(
                hashes_of(n), groups,
                lambda t, a: won(t, a, n) + noise * draw.uniform(-1, 1, n), seed=1,
            ),
            by_worth(range(n)),
        )  # fmt: skip

    assert design(1e-8) == design(0.0)
    assert design(0.5) != design(0.0)


def test_tied_stimuli_meet_others_in_each_round():
    """An observer who never decides still sees nine different partners of nearly each stimulus."""
    n = 40
    design = double_stimulus(hashes_of(n), groups_of([n]), lambda t, a: won(t, a, n), seed=1)
    rounds = run(design, lambda _: Preference("comparable"))
    assert len({pair(t) for t in flat(rounds)}) >= 0.98 * SWISS_ROUNDS * n / 2


def test_swiss_finds_the_scale_of_the_full_round_robin():
    """Accuracy .98, a tenth ties, M = 150: SRCC .98 with all pairs' scale within 3.9M queries."""
    n, seeds = 150, range(2)
    accuracy, reached = zip(*(swiss_beside_round_robin(n, seed) for seed in seeds), strict=True)
    assert abs(np.mean(accuracy) - 0.98) < 0.004
    assert np.mean(reached) >= 0.98


def swiss_beside_round_robin(n: int, seed: int) -> tuple[float, float]:
    """Share of all pairs answered right, and SRCC after at most 3.9 queries per stimulus."""
    draw = np.random.default_rng(seed)
    worth = draw.normal(size=n)
    latent = np.triu(worth[:, None] - worth[None, :] + 0.09 * draw.normal(size=(n, n)), 1)
    latent -= latent.T  # one fixed answer per pair
    off = ~np.eye(n, dtype=bool)
    tie = np.quantile(np.abs(latent[off]), 0.1)
    outcome = np.where(np.abs(latent) <= tie, 0.5, latent > 0)
    accuracy = ((latent > 0) == (worth[:, None] > worth[None, :]))[off].mean()
    answers = {1.0: Preference("first"), 0.0: Preference("second"), 0.5: Preference("comparable")}

    def scale(trials, _answers=None):
        pairs = [(*t.stimuli, outcome[t.stimuli]) for t in trials]
        return thurstone_map(Comparisons.from_judgements(pairs, n)).scores

    rounds = run(
        double_stimulus(hashes_of(n, seed), groups_of([n]), scale, seed=seed),
        lambda t: answers[float(outcome[t.stimuli])],
    )
    sizes = np.cumsum([len(trials) for trials in rounds])
    asked = flat(rounds[: int((sizes <= 3.9 * n).sum())])
    whole = thurstone_map(outcome * off).scores
    return float(accuracy), float(spearmanr(scale(asked), whole).statistic)


@given(GROUP_SIZES, SEEDS, st.integers(2, 4))
def test_lists_are_balanced(sizes, seed, length):
    """2K lists per reference of K; each stimulus within one list of the others."""
    groups = groups_of(sizes)
    (trials,) = run(multiple_stimulus(hashes_of(len(groups)), groups, seed=seed, length=length))
    assert len(trials) == 2 * len(groups)
    for k, size in enumerate(sizes):
        inside = [t for t in trials if groups[t.stimuli[0]] == f"reference {k}"]
        assert {len(t.stimuli) for t in inside} == {min(length, size)}
        seen = Counter(i for t in inside for i in t.stimuli)
        assert max(seen.values()) - min(seen.values()) <= 1
        assert len(seen) == size


def test_places_in_a_list_are_balanced():
    """Over 800 lists each half of the stimuli stands as often in each place (5 sigma)."""
    n = 400
    (trials,) = run(multiple_stimulus(hashes_of(n), groups_of([n]), seed=1))
    places = np.array([t.stimuli for t in trials])
    assert places.shape == (2 * n, 4)
    assert np.all(np.abs((places < n / 2).mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(2 * n))


@given(GROUP_SIZES)
def test_paper_counts(sizes):
    """5M pairs and 2M lists; every stimulus is the anchor, and shown first, as often."""
    groups = groups_of(sizes)
    n = len(groups)
    (pairs,) = run(double_stimulus_paper(n, groups))
    (lists,) = run(multiple_stimulus_paper(n, groups))
    assert Counter(t.stimuli[0] for t in pairs) == dict.fromkeys(range(n), 5)
    assert Counter(t.stimuli[0] for t in lists) == dict.fromkeys(range(n), 2)
    assert run(double_stimulus_paper(n, groups)) == [pairs]


@pytest.mark.parametrize("design", ["double", "multiple", "double paper", "multiple paper"])
def test_too_few_stimuli_name_reference_and_remedy(design):
    """A reference with one stimulus can be compared with nothing."""
    groups, hashes = ["a", "a", "lonely"], hashes_of(3)
    made = {
        "double": lambda: double_stimulus(hashes, groups, lambda t, a: np.zeros(3), seed=0),
        "multiple": lambda: multiple_stimulus(hashes, groups, seed=0),
        "double paper": lambda: double_stimulus_paper(3, groups),
        "multiple paper": lambda: multiple_stimulus_paper(3, groups),
    }[design]()
    with pytest.raises(DesignError, match=r"need at least 2 stimuli of reference lonely.*got 1"):
        next(made)


def test_repeats_are_told_apart_and_the_design_sees_the_first():
    """Three times each question; an adaptive design goes by the first answers."""
    seen = []

    def design():
        seen.append((yield [Trial((0, 1)), Trial((1, 2), repeat=1)]))

    rounds = run(repeated(design(), 3), lambda t: Rating(t.repeat))
    assert len(set(rounds[0])) == 6
    assert Counter(t.stimuli for t in rounds[0]) == {(0, 1): 3, (1, 2): 3}
    assert seen == [[Rating(0), Rating(1)]]


def test_one_repeat_changes_nothing():
    """repeated(design, 1) is the design."""
    groups = groups_of([14])
    n, hashes = 14, hashes_of(14)

    def design():
        return double_stimulus(hashes, groups, lambda t, a: won(t, a, n), seed=2)

    assert run(repeated(design(), 1), by_worth(range(n))) == run(design(), by_worth(range(n)))


def test_draws_depend_on_values_of_all_parts():
    """The same parts give the same numbers; ("ab", "c") is not ("a", "bc")."""
    draws = [rng(*parts).integers(2**60) for parts in (("ab", "c"), ("a", "bc"), ("ab", "c"))]
    assert draws[0] == draws[2] != draws[1]
