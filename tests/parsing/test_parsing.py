"""The reply parser against three lists of replies with their right readings, and its promises."""

from __future__ import annotations

import csv
import itertools
import os
import time
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.models.observer import _PHRASES, _REFUSALS
from iqa_checks.parsing import parse_reply
from iqa_checks.parsing.text import MAX_CHARS
from iqa_checks.protocols import Answer, Judgement, Preference, Ranking, Rating, Unparsed

HERE = Path(__file__).parent
LISTS = {
    "corpus": HERE.parent / "data" / "replies.yaml",
    "more": HERE / "more_replies.yaml",
    "unseen": HERE / "unseen_replies.yaml",
}
#: replies that the parser does not read as the list says; an entry that agrees must go
KNOWN_DISAGREEMENTS = {
    "A=1 (best), B=2, C=3, D=4, although I am unsure whether A=4 would be right.",
    "Hmm. Compared with image 1 (reference), image 2 is a bit softer. So: 88",
}
REASONS = {
    "empty", "refusal", "truncated", "ambiguous", "out of range", "incomplete ranking", "no answer",
}  # fmt: skip


def entries() -> list[Any]:
    params = []
    for name, path in LISTS.items():
        for k, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))):
            kind = entry.get("kind", "")
            params.append(pytest.param(entry, id=f"{name}-{k}-{entry['answer']}-{kind}"))
    return params


def comparable_form(judgement: Judgement) -> object:
    """A score to two decimals, a choice, the order of ranks, or "nothing"."""
    if isinstance(judgement, Rating):
        return round(judgement.score, 2)
    if isinstance(judgement, Preference):
        return judgement.choice
    if isinstance(judgement, Ranking):
        return order(judgement.ranks)
    return "nothing"


def order(ranks: Any) -> tuple[int, ...]:
    levels = sorted(set(ranks))
    return tuple(levels.index(rank) for rank in ranks)


def expected(entry: dict[str, Any]) -> object:
    reads = entry["reads"]
    if isinstance(reads, list):
        return order(reads)
    return round(float(reads), 2) if entry["answer"] == "rating" and reads != "nothing" else reads


@pytest.mark.parametrize("entry", entries())
def test_reads_as_the_list_says(entry: dict[str, Any]) -> None:
    context = {k: entry[k] for k in ("n_stimuli", "n_before", "finish_reason") if k in entry}
    judgement = parse_reply(entry["text"], entry["answer"], **context)
    agrees = comparable_form(judgement) == expected(entry)
    assert agrees != (entry["text"] in KNOWN_DISAGREEMENTS), judgement
    if isinstance(judgement, Unparsed):
        assert judgement.reason in REASONS


@pytest.mark.parametrize(
    ("text", "answer", "context", "reason"),
    [
        ("", "rating", {}, "empty"),
        ("", "rating", {"finish_reason": "length"}, "truncated"),
        ("I'm sorry, I can't view images.", "preference", {}, "refusal"),
        ("", "ranking", {"finish_reason": "content_filter"}, "empty"),
        ("This was blocked.", "ranking", {"finish_reason": "content_filter"}, "refusal"),
        ("Description: The sky shows", "rating", {"finish_reason": "length"}, "truncated"),
        ("Ranks: A=3, B=1, C=", "ranking", {"finish_reason": "length"}, "truncated"),
        ("Score: 40 or 80", "rating", {}, "ambiguous"),
        ("Answer: first or second", "preference", {}, "ambiguous"),
        ("Score: 120", "rating", {}, "out of range"),
        ("Ranks: A=9, B=0, C=1, D=2", "ranking", {}, "out of range"),
        ("Ranks: A=2, B=0, C=1", "ranking", {}, "incomplete ranking"),
        ("A lighthouse.", "rating", {}, "no answer"),
    ],
)
def test_says_why_a_reply_is_not_read(
    text: str, answer: Answer, context: dict[str, Any], reason: str
) -> None:
    assert parse_reply(text, answer, **context) == Unparsed(reason)


@pytest.mark.parametrize(
    ("text", "n_before", "choice"),
    [
        ("Answer: 2", 0, "second"),
        ("Answer: 2", 1, None),
        ("Answer: 3", 1, "second"),
        ("Answer: 1", 1, "first"),
        ("Answer: image 1", 1, None),
        ("Answer: B", 1, "second"),
        ("Answer: test image 2", 1, "second"),
        ("Answer: image 5", 4, "first"),
        ("Answer: image 6", 4, "second"),
        ("Answer: second", 4, "second"),
        ("Image 3 is closer to image 1 than image 2.", 1, "second"),
    ],
)
def test_numbers_that_could_be_two_images_are_not_read(
    text: str, n_before: int, choice: str | None
) -> None:
    judgement = parse_reply(text, "preference", n_before=n_before)
    assert judgement == (Preference(choice) if choice else Unparsed("ambiguous"))  # type: ignore[arg-type]


def test_a_cut_off_number_is_not_read() -> None:
    cut = "length"
    assert parse_reply("Score: 8", "rating", finish_reason=cut) == Unparsed("truncated")
    assert parse_reply("Score: 85\nThe", "rating", finish_reason=cut) == Rating(85)
    assert parse_reply("Score: 100", "rating", finish_reason=cut) == Rating(100)
    assert parse_reply("Score: 7/10", "rating", finish_reason=cut) == Unparsed("truncated")
    assert parse_reply("Score: 85/100", "rating", finish_reason=cut) == Rating(85)


KEY = "image 1 is the reference; image 2 is the first test image; image 3 is the second test image."


@pytest.mark.parametrize("answer", get_args(Answer))
@pytest.mark.parametrize(
    "echo",
    [
        f"Images, in order: {KEY}",
        f"Decide which of them is better: the first, the second, or whether their quality is "
        f"comparable.\nAnswer: <first, second or comparable>\nImages, in order: {KEY}",
        "Score: <number from 0 to 100>\nImages, in order: image 1 is the test image.",
        "so the ranks for the example are: A=2, B=0, C=3, D=1. Always give an answer.\n"
        "Ranks: A=<rank>, B=<rank>, C=<rank>, D=<rank>",
    ],
)
def test_the_prompt_repeated_is_no_answer(echo: str, answer: Answer) -> None:
    for n_before in (0, 1, 4):
        assert isinstance(parse_reply(echo, answer, n_before=n_before), Unparsed)


@pytest.mark.parametrize("answer", get_args(Answer))
def test_observers_are_understood(answer: Answer) -> None:
    values: dict[str, dict[str, Judgement]] = {
        "rating": {str(k): Rating(k) for k in (0, 7, 50, 100)},
        "preference": {
            "first": Preference("first"),
            "the first image": Preference("first"),
            "second": Preference("second"),
            "the second image": Preference("second"),
            "comparable": Preference("comparable"),
            "comparable quality": Preference("comparable"),
        },
        "ranking": {"A=2, B=0, C=3, D=1": Ranking((2, 0, 3, 1)), "A=0, B=0, C=1, D=1":
                    Ranking((0, 0, 1, 1))},
    }  # fmt: skip
    for phrase, (value, judgement) in itertools.product(_PHRASES[answer], values[answer].items()):
        for n_before in (0, 1, 4):
            assert parse_reply(phrase.format(value), answer, n_before=n_before) == judgement
    for refusal in _REFUSALS:
        assert parse_reply(refusal, answer) == Unparsed("refusal")


def descriptions() -> list[str]:
    root = os.environ.get("IQA_CHECKS_RATED_DATA")
    if not root or not Path(root, "mllm_texts").is_dir():
        pytest.skip("IQA_CHECKS_RATED_DATA is not set")
    texts = []
    for path in sorted(Path(root, "mllm_texts").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [row["answer"] for row in csv.DictReader(file)]
    return texts


@pytest.mark.parametrize("answer", get_args(Answer))
@pytest.mark.parametrize("n_stimuli", [2, 4])
def test_nothing_is_read_from_descriptions(answer: Answer, n_stimuli: int) -> None:
    texts = descriptions()
    assert texts
    readings = {text: parse_reply(text, answer, n_stimuli=n_stimuli) for text in texts}
    assert [t for t, reading in readings.items() if not isinstance(reading, Unparsed)] == []


# --- properties --------------------------------------------------------------------------------

ANSWERS = st.sampled_from(get_args(Answer))
FRAGMENTS = st.sampled_from(
    ["Score:", "Answer:", "Ranks:", "A=", "first", "second", "/", "85", " or ", ">", "|", "\n",
     "---", "<", "best to worst", "\\boxed{", "}", "<answer>", "image ", "better", " than ", "not "]
)  # fmt: skip
WORDS = st.lists(st.sampled_from(["the", "sky", "looks", "grainy", "while", "trees"]))


@given(st.text() | st.lists(FRAGMENTS | st.text(max_size=3)).map("".join), ANSWERS,
       st.integers(2, 10), st.integers(0, 8), st.sampled_from(["stop", "length", ""]))  # fmt: skip
def test_never_raises(text: str, answer: Answer, n: int, n_before: int, finish: str) -> None:
    judgement = parse_reply(text, answer, n_stimuli=n, n_before=n_before, finish_reason=finish)
    if isinstance(judgement, Rating):
        assert 0 <= judgement.score <= 100
    if isinstance(judgement, Ranking):
        assert len(judgement.ranks) == n


@given(st.integers(0, 100) | st.decimals(0, 100, places=1), WORDS)
def test_scores_round_trip(score: Any, words: list[str]) -> None:
    text = f"Description: {' '.join(words)}.\nScore: {score}"
    assert parse_reply(text, "rating") == Rating(float(score))


@given(st.permutations(range(4)), st.permutations(range(4)), WORDS)
def test_ranks_round_trip_in_any_order_of_letters(
    ranks: list[int], shown: list[int], words: list[str]
) -> None:
    text = " ".join(words) + "\nRanks: " + ", ".join(f"{'ABCD'[k]}={ranks[k]}" for k in shown)
    assert parse_reply(text, "ranking") == Ranking(tuple(ranks))
    chain = " > ".join("ABCD"[k] for k in sorted(range(4), key=lambda k: -ranks[k]))
    assert parse_reply(chain, "ranking") == Ranking(tuple(ranks))


@given(st.sampled_from(["first", "second", "comparable"]), WORDS, WORDS)
def test_a_preference_survives_reasoning(choice: Any, before: list[str], after: list[str]) -> None:
    text = f"The second test image: {' '.join(before)}.\nAnswer: {choice}\n{' '.join(after)}"
    assert parse_reply(text, "preference") == Preference(choice)


@pytest.mark.parametrize("answer", get_args(Answer))
@pytest.mark.parametrize(
    "piece",
    ["A ", "1", "Score: ", "score of the ", "A>", "(", "first ", "1, ", "A=1, ", "| a ", "|\n---\n",
     "\\boxed{", "<answer>", "Answer: A is ", "\n", "not ", "best to ", "image ", "*", "- ",
     "<think>", "neither ", "both no ", "A = 1 or ", "十", "分", "<a "],
)  # fmt: skip
def test_long_replies_take_no_time(piece: str, answer: Answer) -> None:
    text = piece * (200_000 // len(piece))
    started = time.perf_counter()
    parse_reply(text, answer)
    assert time.perf_counter() - started < 5


def test_of_a_long_reply_the_end_is_read() -> None:
    assert parse_reply("Score: 10\n" + "a " * MAX_CHARS + "\nScore: 90", "rating") == Rating(90)
    assert parse_reply("Score: 10\n" + "a " * MAX_CHARS, "rating") == Unparsed("no answer")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Image 2 is better.", None),
        ("Answer: image 1", None),
        ("Answer: second", "second"),
        ("Answer: 2", "second"),
        ("Pair 2 looks more alike.", "second"),
    ],
)
def test_an_image_number_names_no_pair(text: str, choice: str | None) -> None:
    """Where pairs of photographs are judged, image 2 is half of the first pair."""
    judgement = parse_reply(text, "preference", images_per_stimulus=2)
    assert judgement == (Unparsed("ambiguous") if choice is None else Preference(choice))


SMALL_MODEL = yaml.safe_load(
    (Path(__file__).parents[1] / "data/small_model_replies.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("entry", SMALL_MODEL, ids=lambda e: e["prompt"].replace(" ", "-"))
def test_replies_of_a_real_small_model(entry: dict[str, Any]) -> None:
    """A model that rambles and echoes is not read as if it had judged."""
    judgement = parse_reply(entry["text"], entry["answer"], n_before=entry["n_before"])
    expected = entry["reads"]
    if expected == "nothing":
        assert isinstance(judgement, Unparsed)
    elif entry["answer"] == "preference":
        assert judgement == Preference(expected)
    else:
        assert judgement == Ranking(tuple(expected))
