"""Difficult selection against a naive search, and what it says of bad input."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from iqa_checks import greedy
from iqa_checks.builtin import builtin_set
from iqa_checks.difficult import (
    difficulty,
    select_difficult,
    select_difficult_by_reference,
)
from iqa_checks.difficult_stimuli import Selecting, difficult_stimuli, opinion_sd
from iqa_checks.errors import UsageError
from iqa_checks.gmad import select_gmad
from iqa_checks.greedy import DIVS, pick_greedily


def simulated(m: int, seed: int = 0, d: int = 8):
    """MOS, SD, expert on 0..100 and features of a made-up set."""
    rng = np.random.default_rng(seed)
    mos = rng.uniform(0, 100, m)
    return mos, rng.gamma(6, 2.3, m), mos + rng.normal(0, 12, m), rng.normal(size=(m, d))


def naive(hard, features, n, div, lam, scaled=True):
    """The objective of every candidate at every step, by the definitions."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    hard = hard / hard.max() if scaled else hard
    picks = [int(np.argmax(hard))]
    widest = _div(unit, picks, div).max() if scaled else 1.0
    objective = [hard[picks[0]]]
    while len(picks) < n:
        total = hard + lam * _div(unit, picks, div) / widest
        total[picks] = -np.inf
        picks.append(int(np.argmax(total)))
        objective.append(total[picks[-1]])
    return np.array(picks), np.array(objective)


def _div(unit, picks, div):
    if div == "cosine_to_mean":
        mean = unit[picks].mean(axis=0)
        return 1 - unit @ mean / np.linalg.norm(mean)
    squared = ((unit[:, None] - unit[None, picks]) ** 2).sum(axis=2)
    return squared.min(axis=1) if div == "min" else squared.mean(axis=1)


@pytest.mark.parametrize("div", DIVS)
@pytest.mark.parametrize("lam", [0.01, 0.3, 20.0])
@pytest.mark.parametrize("scaled", [True, False])
def test_picks_are_those_of_a_naive_search(monkeypatch, div, lam, scaled):
    monkeypatch.setattr(greedy, "BLOCK", 16)  # several blocks, so that bounds decide
    rng = np.random.default_rng(1)
    hard, features = rng.exponential(size=230) ** 2, rng.normal(size=(230, 12))
    picks, objective = pick_greedily(hard, features, 60, div=div, lam=lam, scaled=scaled)
    expected, best = naive(hard, features, 60, div, lam, scaled)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(objective, best, rtol=1e-4, atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    m=st.integers(2, 70),
    div=st.sampled_from(DIVS),
    lam=st.sampled_from([0.01, 0.2, 3.0]),
)
def test_objective_is_that_of_a_naive_search_on_any_set(seed, m, div, lam):
    """Objectives, not picks: rounding may order candidates of equal objective either way."""
    rng = np.random.default_rng(seed)
    hard, features = rng.integers(0, 5, m) + 1.0, rng.integers(-2, 3, (m, 3)) + 0.25
    n = min(m, 12)
    _, objective = pick_greedily(hard, features, n, div=div, lam=lam)
    picks, _ = pick_greedily(hard, features, n, div=div, lam=lam)
    assert len(set(picks.tolist())) == n
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    widest = max(_div(unit, picks[:1], div).max(), 1e-12)
    for k in range(1, n):  # each pick is the best after the picks before it
        total = hard / hard.max() + lam * _div(unit, picks[:k], div) / widest
        total[picks[:k]] = -np.inf
        assert objective[k] == pytest.approx(total.max(), abs=1e-4)


@pytest.mark.parametrize("div", DIVS)
def test_a_shorter_list_is_the_start_of_a_longer_one(div):
    hard, features = np.random.default_rng(2).exponential(size=80), np.eye(80) + 0.1
    longer, _ = pick_greedily(hard, features, 40, div=div, lam=0.5)
    shorter, _ = pick_greedily(hard, features, 15, div=div, lam=0.5)
    np.testing.assert_array_equal(shorter, longer[:15])


def test_lambda_zero_is_the_most_difficult_and_needs_no_features():
    mos, sd, expert, _ = simulated(50)
    picks = select_difficult(mos, sd, expert, None, 10, lam=0).picks
    np.testing.assert_array_equal(picks, np.argsort(-difficulty(mos, sd, expert))[:10])


def test_lazy_evaluation_looks_at_few_blocks(monkeypatch):
    monkeypatch.setattr(greedy, "BLOCK", 64)
    seen = []
    of = greedy._Diversity.of
    monkeypatch.setattr(greedy._Diversity, "of", lambda self, k: seen.append(k) or of(self, k))
    hard, features = (
        np.random.default_rng(3).exponential(size=6400) ** 2,
        np.random.default_rng(4).normal(size=(6400, 16)),
    )
    pick_greedily(hard, features, 50, div="min", lam=0.01)
    assert len(seen) < 0.1 * 50 * 100


def test_features_are_read_from_a_mapped_file_in_bounded_memory(tmp_path, monkeypatch):
    mos, sd, expert, features = simulated(500, d=16)
    path = tmp_path / "features.f32"
    features.astype(np.float32).tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=features.shape)
    expected = select_difficult(mos, sd, expert, features.astype(np.float32), 40).picks
    monkeypatch.setattr(greedy, "BLOCK", 32)
    monkeypatch.setattr(greedy, "KEPT_BYTES", 32 * 16 * 4 * 2)  # two blocks
    np.testing.assert_array_equal(select_difficult(mos, sd, expert, mapped, 40).picks, expected)


def test_variance_normalisation_prefers_what_people_agree_on():
    mos, sd, expert, features = simulated(3000)
    found = select_difficult(mos, sd, expert, features, 150)
    assert found.sd_picks.mean() < 0.6 * found.sd_without_variance.mean()
    assert found.changed_by_variance > 50
    assert not any("variance" in warning for warning in found.warnings)
    assert "variance normalisation" in str(found)


def test_on_zero_to_one_the_variance_term_does_nothing_and_a_warning_says_so():
    mos, sd, expert, features = simulated(3000)
    found = select_difficult(mos / 100, sd / 100, expert / 100, features, 150)
    assert found.changed_by_variance <= 15
    assert any("0..1" in warning for warning in found.warnings)


def test_warns_when_diversity_changes_nothing():
    mos, sd, expert, _ = simulated(200)
    same = np.ones((200, 4))
    found = select_difficult(mos, sd, expert, same, 50)
    assert found.changed_by_diversity == 0
    assert any("diversity" in warning for warning in found.warnings)


def test_references_by_mean_difficulty_then_the_hardest_of_each():
    rng = np.random.default_rng(5)
    mos, sd, expert, _ = simulated(20 * 12)
    references = [f"I{k:02}" for k in range(20) for _ in range(12)]
    found = select_difficult_by_reference(
        mos, sd, expert, references, rng.normal(size=(20, 8)), 5, 3, lam=0.05
    )
    each = difficulty(mos, sd, expert).reshape(20, 12)
    assert found.references[0] == f"I{int(each.mean(axis=1).argmax()):02}"
    assert len(found.picks) == 15
    for k, name in enumerate(found.references):
        r = int(name[1:])
        expected = r * 12 + np.argsort(-each[r])[:3]
        np.testing.assert_array_equal(found.picks[3 * k : 3 * k + 3], expected)


def test_paper_preset_uses_zero_to_one_signs_and_raw_terms():
    mos, sd, expert, features = simulated(300)
    found = select_difficult(mos, sd, expert, features, 30, preset="paper", div="min")
    low, span = mos.min(), np.ptp(mos)
    q, d = (mos - low) / span, (expert - low) / span
    sigma = (sd - sd.min()) / np.ptp(sd)
    expected, _ = naive((d - q) ** 2 / (sigma**2 + 1), np.sign(features), 30, "cosine_to_mean",
                        0.01, scaled=False)  # fmt: skip
    np.testing.assert_array_equal(found.picks, expected)


def test_missing_sd_counts_as_zero_and_is_said():
    mos, sd, expert, features = simulated(100)
    none = select_difficult(mos, None, expert, features, 10)
    assert "treated as 0" in none.warnings[0]
    sd[3] = np.nan
    some = select_difficult(mos, sd, expert, features, 10)
    assert "1 of 100" in some.warnings[0]
    np.testing.assert_array_equal(
        some.picks, select_difficult(mos, np.nan_to_num(sd), expert, features, 10).picks
    )


def test_more_asked_than_there_is_takes_all_and_says_so():
    mos, sd, expert, features = simulated(20)
    found = select_difficult(mos, sd, expert, features, 150)
    assert sorted(found.picks.tolist()) == list(range(20))
    assert found.warnings == (
        "150 stimuli asked for and 20 are there: all are taken, none is left out",
    )


def spoiled(**changes):
    mos, sd, expert, features = simulated(20)
    given = {"mos": mos, "opinion_sd": sd, "expert": expert, "features": features, "n": 5}
    return given | {name: change(given[name]) for name, change in changes.items()}


def with_first(value):
    def change(array):
        return np.concatenate([[value], array[1:]])

    return change


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (spoiled(expert=with_first(np.nan)), "1 of 20 expert scores are not finite"),
        (spoiled(expert=lambda x: x * 0 + 3), "gives 3 to all 20"),
        (spoiled(expert=lambda x: x[:9]), "9 expert scores for 20"),
        (spoiled(mos=with_first(np.inf)), "MOS are not finite"),
        (spoiled(mos=lambda x: x + 50), "expected 0..100"),
        (spoiled(opinion_sd=lambda x: -x), "negative"),
        (spoiled(opinion_sd=lambda x: x[1:]), "19 opinion SD for 20"),
        (spoiled(features=lambda x: x[1:]), "expected 20 rows, one per stimulus"),
        (spoiled(features=lambda x: x[:, 0]), "expected 20 rows"),
        (spoiled(features=lambda x: x * 0), "zero or not finite"),
        (spoiled(features=lambda x: x * np.nan), "zero or not finite"),
        (spoiled(features=lambda _: None), "needs features"),
        (spoiled(n=lambda _: 0), "at least 1"),
        ({**spoiled(), "div": "max"}, "unknown diversity measure 'max'"),
        ({**spoiled(), "lam": -1}, "lambda -1"),
        ({**spoiled(), "epsilon": 0}, "epsilon 0"),
        ({**spoiled(), "preset": "seed"}, "unknown preset"),
    ],
)
def test_bad_input_is_refused_in_words(given, says):
    with pytest.raises(UsageError, match=says):
        select_difficult(**given)


def test_gmad_finds_where_an_attacker_tells_apart_what_a_defender_does_not():
    rng = np.random.default_rng(6)
    quality = rng.uniform(size=400)
    blind = quality + rng.normal(0, 0.02, 400)
    unlike = (np.arange(400) % 40 == 0) * -0.8  # what only the second expert sees
    found = select_gmad(blind, quality + unlike, n_levels=4, pairs_per_level=2)
    ours = found.defender == "first"
    assert ours.sum() == 8
    worse = found.pairs[ours, 0]
    assert (worse % 40 == 0).sum() >= 4  # 1 in 40 by chance
    assert found.gap[ours].mean() > 3 * found.defended[ours].mean()
    flat = found.pairs[ours].ravel()
    assert len(set(flat.tolist())) == len(flat)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([1.0, np.nan, 2.0] * 9, range(27), "not finite"),
        ([1.0] * 27, range(27), "says the same"),
        (range(27), range(26), "26 scores of the second"),
        (range(5), range(5), "needs at least 10"),
    ],
)
def test_gmad_refuses_what_it_cannot_use(first, second, says):
    with pytest.raises(UsageError, match=says):
        select_gmad(np.array(first, float), np.array(second, float))


@pytest.fixture(scope="module")
def builtin(tmp_path_factory):
    return builtin_set("fr", tmp_path_factory.mktemp("builtin"), limit=50)


def test_a_set_is_reduced_to_its_difficult_samples_by_reference(builtin, tmp_path):
    how = Selecting(tmp_path, ("psnr",), "offline", n_references=2, per_reference=3, jobs=1)
    found = difficult_stimuli(builtin, "fr", how)
    assert len(found.stimuli) == 6
    assert len(set(found.stimuli.references)) == 2
    assert set(found.picks.references) == set(found.stimuli.references)
    assert any("difficult for psnr, features offline" in note for note in found.stimuli.notes)
    assert found.expert_scores["psnr"].shape == (6,)
    again = difficult_stimuli(builtin, "fr", how)
    assert again.stimuli.manifest == found.stimuli.manifest


def test_a_set_without_references_uses_the_defaults_that_run_offline(builtin, tmp_path):
    how = Selecting(tmp_path, embedder="offline", n_images=10, n_folds=5, jobs=1)
    found = difficult_stimuli(builtin, "nr", how)
    assert found.experts == ("blur_effect", "noise_sigma")
    assert len(found.stimuli) == 10


def test_absent_clip_weights_are_not_replaced(builtin, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="clip-vit-b-32 needs weights"):
        difficult_stimuli(builtin, "fr", Selecting(tmp_path, ("psnr",), jobs=1))


def test_an_sd_of_the_mean_counts_as_missing(rated_set):
    stimuli = rated_set([1.0, 2.0, 4.0], scale=(0.0, 5.0), sd_kind="of_the_mean")
    assert opinion_sd(stimuli) is None
    rated = replace(
        stimuli,
        sd_kind="per_opinion",
        stimuli=tuple(
            replace(s, opinion_sd=sd)
            for s, sd in zip(stimuli.stimuli, (0.5, None, 1.0), strict=True)
        ),
    )
    np.testing.assert_array_equal(opinion_sd(rated), [10.0, np.nan, 20.0])
