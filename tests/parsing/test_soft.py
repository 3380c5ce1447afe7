"""Soft answers: expected ratings and fractional preferences from token probabilities."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.models.observer import Said, Traits, _rating_odds, token_logprobs
from iqa_checks.parsing import parse_reply
from iqa_checks.parsing.soft import LEAST, MAX_PACKED, pack, soften
from iqa_checks.protocols import Preference, Ranking, Rating, Unparsed

Alternatives = dict[str, float]
near = partial(pytest.approx, abs=0.01)  # four decimals of a log-probability are kept
share = partial(pytest.approx, abs=1e-4)


def token(text: str, alternatives: Alternatives | None = None) -> dict[str, Any]:
    """A token as a chat completion gives it; without alternatives it was certain."""
    known = alternatives or {text: 1.0}
    top = [{"token": t, "logprob": math.log(p)} for t, p in known.items() if p > 0]
    return {"token": text, "logprob": math.log(known[text]), "top_logprobs": top}


def rated(tokens: list[dict[str, Any]], text: str | None = None) -> Any:
    said = "".join(t["token"] for t in tokens) if text is None else text
    return softened(said, tokens, "rating")


def preferred(tokens: list[dict[str, Any]], text: str | None = None) -> Any:
    said = "".join(t["token"] for t in tokens) if text is None else text
    return softened(said, tokens, "preference")


def softened(text: str, tokens: Any, answer: Any, **question: int) -> Any:
    read = partial(parse_reply, answer=answer, **question)
    return soften(read(text), text, pack(tokens), read)


HEAD = [token("Score"), token(":"), token(" ")]


# --- ratings ------------------------------------------------------------------------------------


def test_a_number_in_one_token():
    found = rated([*HEAD, token("85", {"85": 0.5, "75": 0.3, "90": 0.2})])
    assert found.score == near(0.5 * 85 + 0.3 * 75 + 0.2 * 90)


def test_a_number_of_digits():
    """An alternative ten stands for its middle: what would have followed it is not known."""
    tens = token("8", {"8": 0.7, "7": 0.2, "9": 0.1})
    units = token("5", {"5": 0.6, "0": 0.4})
    assert rated([*HEAD, tens, units]).score == near(0.7 * 83 + 0.2 * 74.5 + 0.1 * 94.5)


def test_blanks_and_marks_belong_to_no_number():
    assert rated([token("Score"), token(": "), token(" 60", {" 60": 0.5, "40": 0.5})]).score == 50
    bold = [token("**Score:**"), token(" 60", {" 60": 0.5, " 40": 0.5}), token("/"), token("100")]
    assert rated(bold).score == 50


def test_text_that_is_no_number_is_left_out():
    found = rated([*HEAD, token("60", {"60": 0.4, "I": 0.2, " ": 0.1, "40": 0.3})])
    assert found.score == near((0.4 * 60 + 0.3 * 40) / 0.7)


def test_one_is_the_start_of_a_hundred_beside_a_high_number():
    high = rated([*HEAD, token("9", {"9": 0.5, "1": 0.5}), token("6", {"6": 1.0})])
    low = rated([*HEAD, token("2", {"2": 0.5, "1": 0.5}), token("6", {"6": 1.0})])
    assert high.score == near((96 + 100) / 2)
    assert low.score == near((26 + 14.5) / 2)


@pytest.mark.parametrize(
    ("written", "alternative", "number"),
    [("9", "1", 10), ("5", "1", 1), ("12", "9", 9), ("22", "9", 94.5), ("96", "1", 100),
     ("26", "1", 14.5), ("85", "7", 74.5), ("5", "8", 8)],
)  # fmt: skip
def test_an_alternative_digit_begins_a_number_of_like_length(written, alternative, number):
    first = token(written[0], {written[0]: 0.5, alternative: 0.5})
    rest = [token(digit) for digit in written[1:]]
    assert rated([*HEAD, first, *rest]).score == near((int(written) + number) / 2)


@given(st.floats(15, 85), st.floats(1, 8), st.floats(-1.5, 1.5))
def test_digits_tell_about_what_whole_numbers_tell(mean, noise, deviation):
    """The simulated observer's odds in both forms: digits err by less than half a ten."""
    odds = _rating_odds([mean], Traits(noise=noise))
    written = str(round(mean + deviation * noise))
    said = Said(f"Score: {written}", written, 7, odds)
    whole, split = (
        softened(said.text, token_logprobs(said, 20, digits=digits), "rating").score
        for digits in (False, True)
    )
    assert whole == pytest.approx(mean, abs=0.3 + noise / 8)  # twenty alternatives are given
    assert split == pytest.approx(mean, abs=4.5)


def test_a_hundred_in_digits():
    """Nine beside it starts 90; an end after "10" is ten; a digit too many is none."""
    digits = [token("1", {"1": 0.8, "9": 0.2}), token("0"), token("0", {"0": 0.9, "\n": 0.1})]
    assert rated([*HEAD, *digits]).score == near(0.2 * 94.5 + 0.8 * (0.9 * 100 + 0.1 * 10))
    end = token("<|im_end|>", {"<|im_end|>": 0.5, "0": 0.5})
    assert rated([*HEAD, token("10"), end], "Score: 10").score == near(55)
    assert rated([*HEAD, token("60"), end], "Score: 60").score == 60


def test_other_scales_and_fractions():
    """An alternative is worth what the written number is worth."""
    out_of_ten = [*HEAD, token("8", {"8": 0.5, "6": 0.5}), token("/"), token("10")]
    assert rated(out_of_ten).score == pytest.approx(70)
    half = [*HEAD, token("7", {"7": 0.5, "5": 0.5}), token("."), token("5"), token("/10")]
    assert rated(half).score == pytest.approx(65)


def test_the_answer_is_the_number_that_decides():
    """Numbers in the description, and after the answer, are none."""
    noise = {"3": 0.5, "9": 0.5}
    tokens = [token("Description: image "), token("3", noise), token(" defects.\n"), *HEAD,
              token("40", {"40": 0.5, "20": 0.5}), token(".\nI looked at "), token("3", noise),
              token(" regions.")]  # fmt: skip
    assert rated(tokens).score == pytest.approx(30)


digits = st.dictionaries(st.sampled_from("23456789"), st.floats(0.05, 1), min_size=1, max_size=4)


def normal(weights: Alternatives) -> Alternatives:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@given(digits)
def test_splitting_off_a_certain_digit_changes_nothing(units):
    """Where the tens are certain, digits and whole numbers say the same."""
    units = normal(units)
    u = max(units, key=units.get)
    one = rated([*HEAD, token("4" + u, {"4" + d: p for d, p in units.items()})])
    two = rated([*HEAD, token("4"), token(u, units)])
    assert one.score == near(two.score)


@given(st.lists(st.tuples(st.integers(0, 130), st.floats(1e-3, 1)), min_size=1, max_size=12))
def test_an_expected_rating_is_a_rating_among_its_candidates(candidates):
    weights = normal({str(number): weight for number, weight in candidates})
    usable = [int(n) for n, p in weights.items() if int(n) <= 100 and p > LEAST]
    said = next((n for n in weights if int(n) <= 100 and weights[n] > LEAST), None)
    if said is None:
        return
    found = rated([*HEAD, token(said, weights)])
    assert min(usable) - 1e-9 <= found.score <= max(usable) + 1e-9


@given(st.integers(0, 100), st.booleans())
def test_certain_is_the_written_answer(score, split):
    parts = [token(d) for d in str(score)] if split else [token(str(score))]
    assert rated([*HEAD, *parts]) == Rating(score)


# --- preferences --------------------------------------------------------------------------------

ANSWER = [token("Answer"), token(":")]


def test_a_preference_in_one_token():
    said = token(" first", {" first": 0.5, " second": 0.2, " comparable": 0.2, " I": 0.1})
    assert preferred([*ANSWER, said]) == Preference("first", share(0.6 / 0.9))


@pytest.mark.parametrize(("written", "worth"), [("first", 1.0), ("second", 0.0),
                                                ("comparable", 0.5)])  # fmt: skip
@pytest.mark.parametrize("split", [(), (1,), (3,), (1, 2, 4)])
def test_certain_preferences_are_the_written_ones(written, worth, split):
    cuts = [0, *split, len(written)]
    parts = [token(written[a:b]) for a, b in itertools.pairwise(cuts)]
    assert preferred([*ANSWER, token(" "), *parts]) == Preference(written, worth)


weights = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(weights, st.sampled_from(["first", "second", "comparable"]))
def test_splitting_a_word_changes_nothing(shares, written):
    names = ("first", "second", "comparable")
    known = normal(dict(zip(names, shares, strict=True)))
    whole = preferred([*ANSWER, token(" "), token(written, known)])
    parts = token(written[:2], {name[:2]: p for name, p in known.items()})
    split = preferred([*ANSWER, token(" "), parts, token(written[2:])])
    expected = known["first"] + known["comparable"] / 2
    assert whole.outcome == pytest.approx(expected, abs=1e-3)
    assert split.outcome == pytest.approx(expected, abs=1e-3)
    assert whole.choice == split.choice == written


def test_alternatives_to_the_article_count():
    """ " the first image": the way to "comparable" branches off at "the"."""
    the = token(" the", {" the": 0.6, " comparable": 0.4})
    word = token(" first", {" first": 0.75, " second": 0.25})
    found = preferred([*ANSWER, the, word, token(" image"), token(".")])
    assert found.outcome == share(0.6 * 0.75 + 0.4 / 2)


def test_numbers_and_letters_name_the_stimuli():
    said = token(" 2", {" 2": 0.75, " 1": 0.25})
    assert preferred([*ANSWER, said]) == Preference("second", share(0.25))
    said = token(" B", {" B": 0.5, " A": 0.5})
    assert preferred([*ANSWER, said]) == Preference("second", share(0.5))


def test_the_answer_is_the_word_that_decides():
    tokens = [token("The "), token("first", {"first": 0.5, "second": 0.5}), token(" is sharp.\n"),
              *ANSWER, token(" second", {" second": 0.9, " first": 0.1}), token(".")]  # fmt: skip
    assert preferred(tokens) == Preference("second", share(0.1))


# --- what has none ------------------------------------------------------------------------------


def test_rankings_and_unusable_replies_have_no_soft_reading():
    packed, read = pack([token("x", {"x": 0.5, "y": 0.5})]), partial(parse_reply, answer="rating")
    assert soften(Ranking((0, 1)), "x", packed, read) is None
    assert soften(Unparsed("refusal"), "x", packed, read) is None
    assert softened("Score: 60", [], "rating") is None


def test_tokens_of_another_text_are_not_read():
    said = [*HEAD, token("60", {"60": 0.5, "40": 0.5})]
    assert rated(said, "Score: 60 or so") is None
    assert rated([token("reasoning that is not shown"), *said], "Score: 60").score == 50


def test_blanks_that_the_endpoint_stripped():
    said = [token("  "), *HEAD, token("60\n", {"60\n": 0.5, "40": 0.5}), token("\n")]
    assert rated(said, "Score: 60").score == 50


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.sampled_from(["token", "logprob", "top_logprobs"]), inside, max_size=3)
    ),
)


@given(json_like)
def test_whatever_an_endpoint_sends_is_packed_or_nothing(content):
    packed = pack(content)
    assert packed == "" or isinstance(json.loads(packed), list)
    assert len(packed) <= MAX_PACKED


@given(st.text(max_size=30) | json_like.map(lambda x: json.dumps(x, allow_nan=True)))
def test_whatever_a_store_holds_gives_an_answer_in_range_or_none(packed):
    read = partial(parse_reply, answer="rating")
    found = soften(Rating(60.0), "Score: 60", packed, read)
    assert found is None or 0 <= found.score <= 100


def test_of_a_long_reply_the_end_is_kept():
    long = [token(f"word{k} ", {f"word{k} ": 0.5, "x": 0.5}) for k in range(4000)]
    tokens = [*long, *HEAD, token("60", {"60": 0.5, "40": 0.5})]
    assert len(pack(tokens)) <= MAX_PACKED
    assert rated(tokens).score == 50


@pytest.mark.parametrize("value", [math.nan, 0.5, "-1", None, True, [], -math.inf])
def test_a_log_probability_that_is_none_is_left_out(value):
    bad = {"token": "90", "logprob": value}
    good = [{"token": "60", "logprob": math.log(0.5)}, {"token": "40", "logprob": math.log(0.5)}]
    said = {"token": "60", "logprob": math.log(0.5), "top_logprobs": [bad, *good]}
    assert rated([*HEAD, said]).score == pytest.approx(50)
