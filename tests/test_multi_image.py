"""Whether a model sees every image: on observers that ignore a place, lean, or see nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from iqa_checks.builtin import damaged_versions
from iqa_checks.datasets import default_cache
from iqa_checks.errors import DesignError
from iqa_checks.models.observer import Observer, Traits
from iqa_checks.multi_image import (
    ImagesSeen,
    bounds_of_response,
    images_seen,
    prompts_of,
    standing,
)
from iqa_checks.prompts import Prompt
from iqa_checks.protocols import Preference, Ranking, Rating, Unparsed
from iqa_checks.replies import Reply
from iqa_checks.stimuli import StimulusSet


@pytest.fixture(scope="module")
def contents() -> list[StimulusSet]:
    return damaged_versions(default_cache(), n=15)


@dataclass
class Looker:
    """An observer to whom every place in ``ignored`` looks the same, whatever is there."""

    ignored: frozenset[int]
    constant: bytes
    observer: Observer = field(default_factory=lambda: Observer(Traits()))

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(self._reply(prompt)) for prompt in prompts]

    def _reply(self, prompt: Prompt) -> str:
        seen = [
            self.constant if k in self.ignored else image.read()
            for k, image in enumerate(prompt.images)
        ]
        return self.observer.reply(prompt.text, seen)


@dataclass
class Parrot:
    """Says the same to everything."""

    text: str

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(self.text) for _ in prompts]


@pytest.mark.parametrize("ignored", [(), (0,), (1,), (3,), (0, 2)])
def test_exactly_the_ignored_places_are_blind(contents, ignored):
    looker = Looker(frozenset(ignored), contents[0].stimuli[1].image.read())
    seen = images_seen(contents, 4, looker)
    assert seen.blind == tuple(k + 1 for k in ignored)
    for place in seen.places:
        assert place.response == (0 if place.position in seen.blind else 1)


@pytest.mark.parametrize("ignored", [0, 1])
def test_one_image_of_a_pair_ignored_decides_all_pairs_and_is_found(contents, ignored):
    """The failure of the paper's Fig. 5: its answers to good against bad are all right."""
    looker = Looker(frozenset({ignored}), contents[0].stimuli[1].image.read())
    assert images_seen(contents, 2, looker).blind == (ignored + 1,)


@pytest.mark.parametrize(
    ("n_images", "text", "unparsed"),
    [(2, "Answer: first", 0), (4, "Ranks: A=0, B=1, C=2, D=3", 0), (4, "Sorry, I cannot.", 1)],
)
def test_a_parrot_sees_nothing_and_notices_nothing(contents, n_images, text, unparsed):
    seen = images_seen(contents, n_images, Parrot(text))
    assert seen.blind == tuple(range(1, n_images + 1))
    assert seen.unparsed == unparsed
    assert seen.comparable == 0
    assert all(place.noticed == 0 for place in seen.places)


def test_blind_is_decided_up_to_ten_images(contents):
    ten = "Ranks: " + ", ".join(f"{letter}=0" for letter in "ABCDEFGHIJ")
    seen = images_seen(contents, 10, Parrot(ten))
    assert seen.blind == tuple(range(1, 11))
    assert seen.comparable == 1


@pytest.mark.parametrize("n_images", [2, 4])
def test_questions_differ_in_one_image(contents, n_images):
    prompts = prompts_of(contents[:1], n_images)
    assert len({p.text for p in prompts.values()}) == 1
    assert len(prompts) == 2 * n_images + 2
    good, middle, bad = (s.image for s in contents[0].stimuli)
    for question, prompt in prompts.items():
        expected = [middle] * (n_images - question.dropped)
        if question.place is not None:
            expected[question.place] = (good, middle, bad)[question.version]
        assert list(prompt.images) == expected


def test_list_length_out_of_range(contents):
    with pytest.raises(DesignError, match="a list of 11 images: expected 2 to 10"):
        images_seen(contents, 11, Parrot(""))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Preference("first"), (1, -1)),
        (Preference("second"), (-1, 1)),
        (Preference("comparable"), (0, 0)),
        (Ranking((3, 1, 1, 0)), (1, 0, 0, -1)),
        (Rating(50), None),
        (Unparsed("empty"), None),
    ],
)
def test_standing(answer, expected):
    found = standing(answer, len(expected or (0, 0)))
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.integers(1, 60), st.data())
def test_bounds_hold_the_response_and_mirror(n, data):
    followed = data.draw(st.integers(0, n))
    against = data.draw(st.integers(0, n - followed))
    low, high = bounds_of_response(followed, against, n, level=0.025)
    assert -1 - 1e-9 <= low <= (followed - against) / n <= high <= 1 + 1e-9
    mirrored = bounds_of_response(against, followed, n, level=0.025)
    assert mirrored == pytest.approx((-high, -low))


@pytest.mark.parametrize("shares", [(0.4, 0.4), (0.05, 0.05), (0.5, 0.0), (0.75, 0.25)])
def test_error_rates_by_enumeration(shares):
    """Where it is decided (no response: "seen"; one half: "blind") the level .0125 holds within
    .006; Wilson's bounds are known to err on that side."""
    truth, n = shares[0] - shares[1], 15
    too_low = too_high = 0.0
    for followed in range(n + 1):
        for against in range(n - followed + 1):
            counts = (followed, against, n - followed - against)
            low, high = bounds_of_response(followed, against, n, level=0.0125)
            chance = multinomial.pmf(counts, n, (*shares, 1 - sum(shares)))
            too_low += chance * (low > truth + 1e-9)
            too_high += chance * (high < truth - 1e-9)
    assert max(too_low, too_high) <= 0.0125 + 0.006


def test_plain_and_back(contents):
    seen = images_seen(contents, 2, Parrot("Answer: first"))
    assert ImagesSeen.from_plain(seen.plain()) == seen
