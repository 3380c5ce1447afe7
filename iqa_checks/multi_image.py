"""Does a model see every image it is sent, each in its place?

A model may look at one of several images and ignore the rest (Wu et al. 2024, Fig. 5): it then
answers the double- and multiple-stimulus protocols in good form and knows little. How many of its
answers are right does not show it, because one image of a pair decides most pairs; what shows it
is whether the answer follows a change of one image while all others stay. The list shows one
picture n times, moderately damaged. Three changes to it:

swap
    One place shows the pristine picture, then a badly damaged version, each place in turn. The
    place's standing must fall from the one to the other.
drop
    The badly damaged image is left out of the request, which still speaks of n images. A model
    that had seen it answers something else, or says that an image is missing.
repeat
    No place is changed: the quality of n times the same image is comparable. An answer that
    prefers one shows how the model leans when there is nothing to see.

The response of a place is the share of swaps that its standing followed less the share in which
it went the other way: 1 for a sure observer, exactly 0 for one that never looks there. A place is
*seen* where the response is significantly above 0; else *blind* where it is significantly below
one half, and *unclear* between. Bounds: Wilson's intervals of the two shares, combined as Newcombe
(1998, Stat. Med. 17, 2635) combines correlated ones; one-sided levels, shared over the places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from iqa_checks.errors import DesignError
from iqa_checks.parsing import parse_reply
from iqa_checks.prompts import Prompt, build_prompt, find_strategy
from iqa_checks.protocols import Judgement, Preference, ProtocolName, Ranking, Trial, Unparsed

if TYPE_CHECKING:
    from iqa_checks.broker import Asker
    from iqa_checks.stimuli import StimulusSet

Status = Literal["seen", "blind", "unclear"]
N_CONTENTS = 15  # swaps of a place: with none followed it is blind, up to lists of ten images
HALF = 0.5
GOOD, MIDDLE, BAD = 0, 1, 2  # what `damaged_versions` gives of each content, in this order


@dataclass(frozen=True, slots=True)
class Place:
    """What was found at one position of the list, counted from 1.

    Of ``n`` swaps the standing followed ``followed``, and went the other way ``against``.
    ``response`` is the difference of the two shares, between ``low`` and ``high``. ``noticed`` is
    the share of answers that changed when the damaged image was left out.
    """

    position: int
    followed: int
    against: int
    n: int
    response: float
    low: float
    high: float
    noticed: float
    status: Status


@dataclass(frozen=True, slots=True)
class ImagesSeen:
    """The places of a list of ``n_images``, and how the model answered about identical images.

    ``comparable`` is the share of lists of one repeated image that were answered as comparable,
    ``unparsed`` the share of unusable replies to requests that had all their images.
    """

    n_images: int
    places: tuple[Place, ...]
    comparable: float
    unparsed: float

    @property
    def blind(self) -> tuple[int, ...]:
        """Positions of the places that are not seen, counted from 1."""
        return tuple(place.position for place in self.places if place.status == "blind")

    def __str__(self) -> str:
        places = "; ".join(
            f"image {p.position} {p.status} (response {p.response:.2f} "
            f"[{p.low:.2f}, {p.high:.2f}], leaving it out changes {p.noticed:.0%})"
            for p in self.places
        )
        return (
            f"{self.n_images} images: {places}; repeated images called comparable "
            f"{self.comparable:.0%}; {self.unparsed:.0%} unparsed"
        )

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "places": [asdict(place) for place in self.places]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ImagesSeen:
        return cls(**{**plain, "places": tuple(Place(**place) for place in plain["places"])})


class Question(NamedTuple):
    """A list of one content with ``version`` at ``place``, the middle one elsewhere.

    ``dropped`` says that one image is left out of the request; which one makes no difference.
    """

    content: int
    place: int | None = None
    version: int = MIDDLE
    dropped: bool = False


def images_seen(
    contents: Sequence[StimulusSet], n_images: int, model: Asker, *, alpha: float = 0.05
) -> ImagesSeen:
    """Ask about lists of ``n_images`` (2 to 10).

    ``contents`` are sets of three versions of one picture: pristine, moderately and badly damaged
    (`builtin.damaged_versions`).

    The prompts are those of the standard no-reference templates: double-stimulus for two images,
    multiple-stimulus above. There are 2 n_images + 2 for each content.

    Raises
    ------
    DesignError
        No such list length.
    InfrastructureError
        The model could not be asked.
    """
    if not 2 <= n_images <= 10:
        raise DesignError(f"a list of {n_images} images: expected 2 to 10")
    asked = prompts_of(contents, n_images)
    read = {
        question: parse_reply(
            reply.text, prompt.answer, n_stimuli=n_images, finish_reason=reply.finish_reason
        )
        for (question, prompt), reply in zip(
            asked.items(), model.ask(list(asked.values())), strict=True
        )
    }
    whole = {question: answer for question, answer in read.items() if not question.dropped}
    repeated = [answer for question, answer in whole.items() if question.place is None]
    return ImagesSeen(
        n_images,
        tuple(_place(k, read, n_images, alpha / n_images) for k in range(n_images)),
        sum(_all_equal(answer) for answer in repeated) / len(repeated),
        sum(isinstance(answer, Unparsed) for answer in whole.values()) / len(whole),
    )


def prompts_of(contents: Sequence[StimulusSet], n_images: int) -> dict[Question, Prompt]:
    """Every question and the prompt that asks it."""
    protocol: ProtocolName = "double" if n_images == 2 else "multiple"
    strategy = find_strategy("standard")
    prompts: dict[Question, Prompt] = {}
    for c, content in enumerate(contents):
        for question in _questions(c, n_images):
            versions = [
                question.version if k == question.place else MIDDLE for k in range(n_images)
            ]
            prompt = build_prompt(
                Trial(tuple(versions)), content, protocol=protocol, strategy=strategy, scenario="nr"
            )
            if question.dropped:
                prompt = replace(prompt, images=prompt.images[1:])
            prompts[question] = prompt
    return prompts


def _questions(content: int, n_images: int) -> Iterator[Question]:
    yield Question(content)
    yield Question(content, dropped=True)
    for place in range(n_images):
        yield Question(content, place, GOOD)
        yield Question(content, place, BAD)


def _place(k: int, read: Mapping[Question, Judgement], n_images: int, level: float) -> Place:
    bad = [q for q in read if q.place == k and q.version == BAD]
    moves = [
        _followed(
            standing(read[q._replace(version=GOOD)], n_images), standing(read[q], n_images), k
        )
        for q in bad
    ]
    followed, against = moves.count(1), moves.count(-1)
    low, high = bounds_of_response(followed, against, len(bad), level=level)
    changed = sum(read[q] != read[Question(q.content, dropped=True)] for q in bad)
    return Place(
        k + 1,
        followed,
        against,
        len(bad),
        (followed - against) / len(bad),
        low,
        high,
        changed / len(bad),
        "seen" if low > 0 else "blind" if high < HALF else "unclear",
    )


def _followed(good: Sequence[float] | None, bad: Sequence[float] | None, k: int) -> int:
    """1 where place k stood higher with its good image than with its bad one, -1 lower, 0 else."""
    if good is None or bad is None:
        return 0
    return (good[k] > bad[k]) - (good[k] < bad[k])


def standing(answer: Judgement, n_images: int) -> tuple[float, ...] | None:
    """What an answer says of each image: share of the others below it less those above it.

    None where the answer is unusable.
    """
    if isinstance(answer, Preference):
        ranks: Sequence[int] = {"first": (1, 0), "second": (0, 1), "comparable": (0, 0)}[
            answer.choice
        ]
    elif isinstance(answer, Ranking):
        ranks = answer.ranks
    else:
        return None
    others = n_images - 1
    return tuple(sum((mine > r) - (mine < r) for r in ranks) / others for mine in ranks)


def bounds_of_response(followed: int, against: int, n: int, *, level: float) -> tuple[float, float]:
    """Bounds of (followed - against) / n, each at one-sided ``level``.

    The two shares are of one multinomial, so they correlate negatively: Newcombe's square-and-add
    with that correlation.
    """
    low_f, high_f = _wilson(followed, n, level)
    low_a, high_a = _wilson(against, n, level)
    f, a = followed / n, against / n
    odds = (1 - f) * (1 - a)
    correlation = -math.sqrt(f * a / odds) if odds > 0 else 0.0

    def spread(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return f - a - spread(f - low_f, high_a - a), f - a + spread(high_f - f, a - low_a)


def _wilson(count: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, each bound at one-sided ``level``."""
    z = NormalDist().inv_cdf(1 - level)
    share = count / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _all_equal(answer: Judgement) -> bool:
    if isinstance(answer, Ranking):
        return len(set(answer.ranks)) == 1
    return answer == Preference("comparable")
