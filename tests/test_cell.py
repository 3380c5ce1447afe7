"""A cell from stimuli to statistics, with observers whose answers are known."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from iqa_checks.agreement import chance_level
from iqa_checks.cell import Cell, plan, run_cell
from iqa_checks.errors import DesignError, UsageError
from iqa_checks.parsing.soft import pack
from iqa_checks.protocols import PROTOCOLS, Preference, Ranking, Rating, Unparsed
from iqa_checks.replies import Reply
from iqa_checks.scaling import thurstone_map

STRATEGIES = ("standard", "in_context", "chain_of_thought")
SYSTEMS = list(itertools.product(("fr", "nr", "difference"), PROTOCOLS, STRATEGIES))
RATED = list(itertools.product(("fr", "nr"), PROTOCOLS))
REFUSAL = "I'm sorry, but I can't assess these images."


def answer(worths: list[float], prompt: object) -> str:
    """What an observer says who sees ``worths`` exactly."""
    if prompt.answer == "rating":
        said = f"Score: {worths[0]:g}"
    elif prompt.answer == "preference":
        first, second = worths
        choice = "comparable" if first == second else "first" if first > second else "second"
        said = f"Answer: {choice}"
    else:
        levels = sorted(set(worths))
        ranks = (f"{a}={levels.index(w)}" for a, w in zip("ABCD", worths, strict=False))
        said = "Ranks: " + ", ".join(ranks)
    if "Description:" in prompt.text:
        return f"Description: image 1 has 3 defects, the second 40.\n{said}"
    return said


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    """Chance levels by a tenth of the permutations: their figures are agreement's to test."""

    def quick(*arrays, n_permutations=1000, **options):
        return chance_level(*arrays, n_permutations=n_permutations // 10, **options)

    monkeypatch.setattr("iqa_checks.cell.chance_level", quick)


@pytest.fixture
def stimuli(rated_set):
    """Three references with six stimuli each, scores apart and in no order."""
    scores = np.random.default_rng(4).permutation(np.linspace(4, 96, 18))
    return rated_set(scores, references=[f"r{k % 3}" for k in range(18)])


@pytest.fixture
def nr_stimuli(rated_set):
    """Eight stimuli without a reference."""
    return rated_set(np.random.default_rng(5).permutation(np.linspace(3, 93, 8)))


@pytest.fixture
def exact(asker):
    """An asker who knows the human scores of a set, and sees them through ``seen``."""

    def make(stimuli, say=answer, seen: Callable[[float], float] = lambda q: q):
        worth = {s.image.sha256: seen(stimuli.quality_of(s)) for s in stimuli.stimuli}
        return asker(worth.__getitem__, say)

    return make


def cell_of(scenario, stimuli, nr_stimuli, protocol="double", strategy="standard", **options):
    return Cell(
        nr_stimuli if scenario == "nr" else stimuli, scenario, protocol, strategy, **options
    )


@pytest.mark.parametrize(("scenario", "protocol", "strategy"), SYSTEMS)
def test_perfect_observer_agrees_perfectly(
    stimuli, nr_stimuli, exact, scenario, protocol, strategy
):
    """SRCC and KRCC 1 in all systems; every reply is read."""
    cell = cell_of(scenario, stimuli, nr_stimuli, protocol, strategy)
    model = exact(cell.stimuli)
    result = run_cell(cell, model)
    assert result.unparsed == {}
    if scenario == "difference" and protocol != "single":
        # neither 9 Swiss rounds nor 36 lists of 3 join all neighbours of 18
        assert result.srcc.value > (0.99 if protocol == "double" else 0.94)
    else:
        assert result.srcc.value == pytest.approx(1.0)
    if scenario != "fr":  # references have no common zero
        assert result.plcc.value > 0.95
    assert not result.warnings
    assert len(result.asked) == len(model.prompts)
    if protocol == "single":
        assert result.scores == pytest.approx(cell.stimuli.quality, rel=1e-5)
        assert result.plcc_raw.value == pytest.approx(1.0)
    if scenario == "fr":
        assert result.srcc.n_clusters == 3
    assert result.chance.upper < 0.7


@pytest.mark.parametrize(("scenario", "protocol"), RATED)
def test_reversed_observer_is_minus_one(stimuli, nr_stimuli, exact, scenario, protocol):
    """SRCC is signed: a model that prefers the worse is not a good model."""
    cell = cell_of(scenario, stimuli, nr_stimuli, protocol)
    result = run_cell(cell, exact(cell.stimuli, seen=lambda quality: 100 - quality))
    assert result.srcc.value == pytest.approx(-1.0)
    if scenario == "nr":
        assert result.krcc.value == pytest.approx(-1.0)
    assert result.plcc_raw.value < -0.8


@pytest.mark.parametrize("polarity", ["higher_better", "lower_better"])
def test_polarity_decides_the_sign_once(rated_set, exact, polarity):
    """Seeing quality right is SRCC +1 whether low or high scores are good."""
    stimuli = rated_set(range(1, 9), scale=(0.0, 10.0), polarity=polarity)
    result = run_cell(Cell(stimuli, "nr", "single"), exact(stimuli))
    assert result.srcc.value == pytest.approx(1.0)


@pytest.mark.parametrize(("scenario", "protocol"), RATED)
def test_constant_observer_is_undefined_never_zero(stimuli, nr_stimuli, exact, scenario, protocol):
    """All equal: no correlation, in words, and no chance level that it could pass."""
    cell = cell_of(scenario, stimuli, nr_stimuli, protocol)
    result = run_cell(cell, exact(cell.stimuli, seen=lambda _: 50.0))
    for measured in (result.srcc, result.srcc_pooled, result.plcc, result.plcc_raw, result.krcc):
        assert measured.value is None
        assert measured.reason
    assert result.unparsed_rate == 0
    assert result.tie_rate == (1.0 if protocol == "double" else None)


@pytest.mark.parametrize(("scenario", "protocol"), RATED)
def test_all_refusals_leave_nothing(stimuli, nr_stimuli, exact, scenario, protocol):
    """Every reply is counted with its reason; no score is made up."""
    cell = cell_of(scenario, stimuli, nr_stimuli, protocol)
    result = run_cell(cell, exact(cell.stimuli, say=lambda *_: REFUSAL))
    assert result.unparsed_rate == 1.0
    assert result.unparsed == {"refusal": len(result.asked)}
    assert np.isnan(result.scores).all()
    assert result.srcc.value is None
    assert result.plcc.value is None
    assert result.tie_rate is None
    assert result.consistency is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_are_left_out_not_scored(nr_stimuli, exact, protocol):
    """An observer who refuses half of the trials and answers the rest well is still right."""
    turns = itertools.count()

    def half(worths, prompt):
        return REFUSAL if next(turns) % 2 else answer(worths, prompt)

    result = run_cell(Cell(nr_stimuli, "nr", protocol), exact(nr_stimuli, say=half))
    assert result.unparsed_rate == pytest.approx(0.5, abs=0.02)
    assert result.srcc.value > 0.9
    if protocol == "single":
        assert np.isnan(result.scores).sum() == 4
        assert result.srcc.n == 4
        assert result.srcc.value == pytest.approx(1.0)


def test_stimulus_without_an_answer_has_no_score(nr_stimuli, asker):
    """A picture that is always refused stays out: the prior's zero is no measurement."""
    shy = nr_stimuli.stimuli[3].image.sha256
    worth = {s.image.sha256: s.mos for s in nr_stimuli.stimuli}

    def say(worths, prompt):
        return REFUSAL if any(image.sha256 == shy for image in prompt.images) else answer(
            worths, prompt
        )  # fmt: skip

    result = run_cell(Cell(nr_stimuli, "nr", "double"), asker(worth.__getitem__, say))
    assert np.isnan(result.scores).tolist() == [k == 3 for k in range(8)]
    assert result.srcc.n == 7


def test_position_bias_is_fitted_and_costs_nothing(rated_set, exact):
    """An observer who adds 30 points to the first of a pair: the term takes it, the order stays."""
    stimuli = rated_set(np.random.default_rng(1).permutation(np.linspace(5, 95, 40)))

    def biased(worths, prompt):
        return answer([worths[0] + 30, worths[1]], prompt)

    fair = run_cell(Cell(stimuli, "nr", "double"), exact(stimuli))
    result = run_cell(Cell(stimuli, "nr", "double"), exact(stimuli, say=biased))
    assert abs(fair.position_bias) < 0.3
    assert result.position_bias > 0.5
    assert result.consistency < 0.75 < fair.consistency == 1.0
    assert result.srcc.value > 0.9
    firsts = Counter(a.judgement.choice for a in result.asked)
    assert firsts["first"] > 1.5 * firsts["second"]


def test_position_bias_is_not_fitted_where_it_does_not_apply(nr_stimuli, exact):
    """Single and multiple have none; the paper's procedure has none."""
    for options in ({"protocol": "single"}, {"protocol": "multiple"}, {"preset": "paper"}):
        cell = Cell(nr_stimuli, "nr", **{"protocol": "double", **options})
        assert run_cell(cell, exact(nr_stimuli)).position_bias is None


@pytest.mark.parametrize(("scenario", "protocol"), RATED)
def test_results_do_not_depend_on_file_order(stimuli, rated_set, exact, scenario, protocol):
    """The same questions, the same scores, the same statistics for a shuffled table."""
    if scenario == "nr":
        stimuli = rated_set(np.random.default_rng(2).uniform(0, 100, 16))
    order = np.random.default_rng(3).permutation(len(stimuli))
    shuffled = replace(stimuli, stimuli=tuple(stimuli.stimuli[k] for k in order))

    def noisy(worths, prompt):  # errs, but by what is shown alone
        shown = prompt.images[prompt.n_before :]
        errors = [int(image.sha256[:2], 16) / 8 for image in shown]
        return answer([(w + e) / 1.4 for w, e in zip(worths, errors, strict=True)], prompt)

    first, second = (
        run_cell(Cell(s, scenario, protocol), exact(s, say=noisy)) for s in (stimuli, shuffled)
    )
    assert second.scores == pytest.approx(first.scores[order], abs=1e-6)
    assert second.srcc.value == pytest.approx(first.srcc.value, abs=1e-9)
    assert second.srcc.low == pytest.approx(first.srcc.low, abs=1e-6)
    assert second.plcc.value == pytest.approx(first.plcc.value, abs=1e-4)

    def asked(result):
        hashes = [s.sha256 for s in result.cell.stimuli.stimuli]
        return Counter(tuple(hashes[i] for i in a.trial.stimuli) for a in result.asked)

    assert asked(first) == asked(second)


def chance_values(preset: str, rated_set, asker, n_seeds: int = 24) -> np.ndarray:
    """SRCC of random answers in FR double-stimulus, over seeds."""
    values = []
    for seed in range(n_seeds):
        draw = np.random.default_rng(seed)
        stimuli = rated_set(draw.uniform(0, 100, 20), references=[f"r{k % 4}" for k in range(20)])
        model = asker(lambda _, draw=draw: draw.uniform(), answer)
        cell = Cell(stimuli, "fr", "double", preset=preset, seed=seed)
        values.append(run_cell(cell, model).srcc.value)
    return np.array(values)


def test_random_answers_centre_on_zero_under_sound(rated_set, asker):
    """Mean SRCC within 3 standard errors of 0."""
    values = chance_values("sound", rated_set, asker)
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))


def test_random_answers_are_inflated_under_paper(rated_set, asker):
    """The published procedure fits a curve of free sign first: chance lies well above 0."""
    values = chance_values("paper", rated_set, asker, n_seeds=6)
    assert values.mean() > 0.25
    assert values.min() > 0


def test_paper_asks_what_the_released_code_asks(nr_stimuli, exact):
    """5M pairs and 2M lists, ties a full win each."""
    counts = {"single": 8, "double": 40, "multiple": 16}
    for protocol, expected in counts.items():
        result = run_cell(Cell(nr_stimuli, "nr", protocol, preset="paper"), exact(nr_stimuli))
        assert len(result.asked) == expected
        assert result.srcc.value > 0.9


def test_judgements_are_those_of_their_protocol(nr_stimuli, exact):
    """What was asked, replied and read stays together."""
    kinds = {"single": Rating, "double": Preference, "multiple": Ranking}
    for protocol, kind in kinds.items():
        result = run_cell(Cell(nr_stimuli, "nr", protocol), exact(nr_stimuli))
        assert all(isinstance(a.judgement, kind) for a in result.asked)
    rating = run_cell(Cell(nr_stimuli, "nr", "single"), exact(nr_stimuli)).asked[2]
    assert rating.reply.text == f"Score: {nr_stimuli.quality[2]:g}"
    assert rating.judgement == Rating(pytest.approx(nr_stimuli.quality[2], rel=1e-5))


def test_repeats_are_averaged(rated_set, exact):
    """Three ratings of one stimulus count as their mean."""
    stimuli = rated_set([20, 40, 60, 80])
    shift = {0: -9, 1000: 0, 2000: 6}

    def varying(worths, prompt):
        return answer([worths[0] + shift[prompt.repeat]], prompt)

    result = run_cell(Cell(stimuli, "nr", "single", repeats=3), exact(stimuli, say=varying))
    assert len(result.asked) == 12
    assert result.scores == pytest.approx([19, 39, 59, 79])


def test_consistency_counts_mirrored_pairs(rated_set, exact):
    """Always "first": each audited pair contradicts itself. Always comparable: none does."""
    stimuli = rated_set(np.linspace(0, 100, 40))
    cell = Cell(stimuli, "nr", "double")
    stubborn = run_cell(cell, exact(stimuli, say=lambda *_: "Answer: first"))
    assert stubborn.consistency == 0.0
    undecided = run_cell(cell, exact(stimuli, say=lambda *_: "Answer: comparable"))
    assert undecided.consistency == 1.0


@pytest.mark.parametrize(("preset", "share"), [("sound", 0.5), ("paper", 1.0)])
def test_ties_count_half_or_full(nr_stimuli, exact, preset, share):
    """Half a win each under sound, a full one under paper: rebuilt from the replies."""
    cell = Cell(nr_stimuli, "nr", "multiple", preset=preset)
    result = run_cell(cell, exact(nr_stimuli, seen=lambda quality: quality // 30))
    wins = np.zeros((8, 8))
    for a in result.asked:
        for i, j in itertools.permutations(range(4), 2):
            first, second = a.trial.stimuli[i], a.trial.stimuli[j]
            gap = a.judgement.ranks[i] - a.judgement.ranks[j]
            wins[first, second] += 1 if gap > 0 else share if gap == 0 else 0
    expected = thurstone_map(wins).scores
    if preset == "paper":  # which reports scores from 0 to 100
        expected = 100 * (expected - expected.min()) / np.ptp(expected)
    assert result.scores == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("scaling", ["bradley_terry", "thurstone_mosteller", "elo"])
def test_other_scalings_run_and_agree(nr_stimuli, exact, scaling):
    """The method is the cell's choice."""
    result = run_cell(Cell(nr_stimuli, "nr", "double", scaling=scaling), exact(nr_stimuli))
    assert result.srcc.value > 0.9


def test_unknown_names_are_usage_errors(nr_stimuli, exact):
    """A strategy or a method that does not exist."""
    with pytest.raises(UsageError, match="unknown strategy 'cot'"):
        run_cell(Cell(nr_stimuli, "nr", "single", "cot"), exact(nr_stimuli))
    with pytest.raises((UsageError, ValueError), match="elho"):
        run_cell(Cell(nr_stimuli, "nr", "double", scaling="elho"), exact(nr_stimuli))


def test_full_reference_leaves_out_what_has_none(stimuli, exact):
    """Stimuli without a reference are not asked about, and the set says how many were."""
    bare = tuple(replace(s, reference_image=None) for s in stimuli.stimuli[:3])
    mixed = replace(stimuli, stimuli=(*bare, *stimuli.stimuli[3:]))
    result = run_cell(Cell(mixed, "fr", "single"), exact(mixed))
    assert len(result.scores) == len(result.cell.stimuli) == 15
    assert "15 of 18 stimuli: stimuli with a reference" in result.cell.stimuli.notes
    with pytest.raises(DesignError, match="no stimulus has a reference"):
        run_cell(Cell(replace(stimuli, stimuli=bare), "fr", "single"), exact(stimuli))


def test_seed_changes_pairs_and_nothing_else_does(stimuli, exact):
    """All strategies and models see the same pairs in the same order."""

    def trials(strategy, seed, seen):
        cell = Cell(stimuli, "fr", "double", strategy, seed=seed)
        return [a.trial for a in run_cell(cell, exact(stimuli, seen=seen)).asked]

    known = trials("standard", 0, lambda q: q)
    assert trials("chain_of_thought", 0, lambda q: -q) == known
    assert trials("standard", 1, lambda q: q) != known


@pytest.mark.parametrize(("scenario", "protocol"), RATED)
def test_plan_counts_what_is_asked(stimuli, nr_stimuli, exact, scenario, protocol):
    """Without asking: as many prompts as a run needs, with the same images in total."""
    cell = cell_of(scenario, stimuli, nr_stimuli, protocol)
    model = exact(cell.stimuli)
    run_cell(cell, model)
    planned = plan(cell)
    assert len(planned) == len(model.prompts)
    assert sum(len(p.images) for p in planned) == sum(len(p.images) for p in model.prompts)
    assert {p.text for p in planned} == {p.text for p in model.prompts}


def test_plan_of_a_swiss_design_is_close(rated_set, exact):
    """Pairs depend on replies, so the audit's share may differ by a few."""
    stimuli = rated_set(np.linspace(0, 100, 30))
    cell = Cell(stimuli, "nr", "double")
    asked = run_cell(cell, exact(stimuli)).asked
    assert len(plan(cell)) == pytest.approx(len(asked), rel=0.06)


def test_parsing_knows_the_images_in_front(stimuli, exact):
    """ "Image 3" of a full-reference pair is its second test image; "image 2" could be either."""
    cell = Cell(stimuli, "fr", "double")
    third = run_cell(cell, exact(stimuli, say=lambda *_: "Answer: Image 3"))
    assert {a.judgement for a in third.asked} == {Preference("second")}
    turns = itertools.count()
    either = run_cell(cell, exact(stimuli, say=lambda *_: f"Answer: Image {2 + next(turns) % 2}"))
    assert either.unparsed == {"ambiguous": (len(either.asked) + 1) // 2}


def test_disconnected_comparisons_are_warned_about(rated_set, exact):
    """References are apart by design; a split inside a set is not."""
    stimuli = rated_set(np.linspace(0, 100, 8))
    left = {s.image.sha256 for s in stimuli.stimuli[:4]}

    def within_halves(worths, prompt):
        sides = {image.sha256 in left for image in prompt.images}
        return answer(worths, prompt) if len(sides) == 1 else REFUSAL

    result = run_cell(Cell(stimuli, "nr", "double"), exact(stimuli, say=within_halves))
    assert any("component" in warning for warning in result.warnings)
    assert Counter(type(a.judgement) for a in result.asked)[Unparsed] >= 16


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_repeats_have_a_reliability(rated_set, exact, protocol):
    """1 for an observer who says the same again, less for one who does not, None without."""
    stimuli = rated_set([10, 30, 50, 70, 90, 20])

    def forgetful(worths, prompt):
        return answer([100 - w for w in worths] if prompt.repeat >= 1000 else worths, prompt)

    once = run_cell(Cell(stimuli, "nr", protocol), exact(stimuli))
    steady = run_cell(Cell(stimuli, "nr", protocol, repeats=2), exact(stimuli))
    fickle = run_cell(Cell(stimuli, "nr", protocol, repeats=2), exact(stimuli, say=forgetful))
    assert (once.retest, once.retest_kappa) == (None, None)
    assert steady.retest == pytest.approx(1.0)
    assert fickle.retest <= 0
    if protocol == "single":
        assert steady.retest_kappa is None
    else:
        assert (steady.retest_kappa, fickle.retest_kappa < 0) == (1.0, True)


# --- soft answers -------------------------------------------------------------------------------


class Softly:
    """An asker who gives each answer with its alternatives, or without where ``give`` is False."""

    def __init__(self, odds, give=lambda prompt: True):
        self.odds, self.give, self.prompts = odds, give, []

    def ask(self, prompts):
        self.prompts += prompts
        return [self._reply(prompt) for prompt in prompts]

    def _reply(self, prompt):
        odds = self.odds([image.sha256 for image in prompt.images], prompt)
        word = max(odds, key=odds.get)
        top = [{"token": name, "logprob": math.log(p)} for name, p in odds.items()]
        head, tail = {"rating": ("Score: ", ""), "preference": ("Answer: ", ".")}.get(
            prompt.answer, ("Ranks: ", "")
        )
        tokens = [
            {"token": head, "logprob": 0.0, "top_logprobs": []},
            {"token": word, "logprob": math.log(odds[word]), "top_logprobs": top},
            {"token": tail, "logprob": 0.0, "top_logprobs": []},
        ]
        packed = pack(tokens) if prompt.top_logprobs and self.give(prompt) else ""
        return Reply(head + word + tail, logprobs=packed)


def test_soft_ratings_are_expected_ratings(rated_set):
    stimuli = rated_set([10, 30, 50, 70])
    asker = Softly(lambda *_: {"60": 0.6, "20": 0.4})
    hard = run_cell(Cell(stimuli, "nr", "single"), asker)
    assert {p.top_logprobs for p in asker.prompts} == {0}
    soft = run_cell(Cell(stimuli, "nr", "single", soft=True), asker)
    assert set(hard.scores) == {60.0}
    assert soft.scores == pytest.approx([44.0] * 4, abs=0.01)
    assert (hard.soft, soft.soft) == (None, 1.0)


def test_soft_preferences_are_shares_of_a_win(rated_set):
    """Where every written answer is a tie, the odds still tell the order."""
    stimuli = rated_set([10, 30, 50, 70, 90])
    worth = {s.image.sha256: s.mos for s in stimuli.stimuli}

    def odds(shown, _prompt):
        lean = (worth[shown[0]] - worth[shown[1]]) / 400
        return {"comparable": 0.5, "first": 0.25 + lean, "second": 0.25 - lean}

    hard = run_cell(Cell(stimuli, "nr", "double"), Softly(odds))
    soft = run_cell(Cell(stimuli, "nr", "double", soft=True), Softly(odds))
    assert hard.srcc.value is None or abs(hard.srcc.value) < 0.9
    assert soft.srcc.value == pytest.approx(1.0)
    assert soft.tie_rate == 1.0  # as written
    assert soft.asked[0].judgement.choice == "comparable"


def test_rankings_stay_as_written(rated_set):
    """Nothing more is asked for, so that their replies are those of a run without soft answers."""
    asker = Softly(lambda *_: {"A=0, B=1, C=2, D=3": 0.9, "A=3, B=2, C=1, D=0": 0.1})
    result = run_cell(Cell(rated_set([10, 30, 50, 70]), "nr", "multiple", soft=True), asker)
    assert {p.top_logprobs for p in asker.prompts} == {0}
    assert result.soft is None


def test_replies_without_log_probabilities_are_read_as_written(rated_set):
    stimuli = rated_set([10, 30, 50, 70])
    first = stimuli.stimuli[0].image.sha256
    asker = Softly(
        lambda *_: {"60": 0.6, "20": 0.4}, give=lambda prompt: prompt.images[0].sha256 != first
    )
    result = run_cell(Cell(stimuli, "nr", "single", soft=True), asker)
    assert result.soft == 0.75
    assert result.scores == pytest.approx([60, 44, 44, 44], abs=0.01)
