"""Simulated observers: they look at the images they are sent and reply in words, as models do.

An observer reads its task from the prompt's text alone (the image key and the form of the answer),
decodes the bytes it got, computes one statistic per stimulus, and adds what real observers have:
internal noise, a threshold below which two stimuli look comparable, a position bias and lapses.
It is a known quantity for testing the pipeline and its statistics, not a model of human vision.

    observer:noise=5,tie=4,bias=0,lapse=0.01,seed=0

``noise``, ``tie`` and ``bias`` are in points of perceived quality (0..100): the SD of the noise,
the difference that still looks comparable, and what the first of a pair gains. ``lapse`` is the
share of trials that get a refusal. `random` gives valid answers at random, in the same wording.

The same question gets the same answer, in process and over HTTP, in any order.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import UsageError
from iqa_checks.models import ModelSpec
from iqa_checks.parsing.soft import pack
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY = re.compile(r"image (\d+) is ([^;.]+)")
_REFUSALS = (
    "I'm sorry, but I can't help with assessing these images.",
    "As an AI, I am unable to view images directly.",
    "I cannot determine the quality from what I see.",
)
_PHRASES = {
    "rating": ("Score: {}", "score: {}", "**Score:** {}", "The quality is fair.\nScore: {}/100"),
    "preference": ("Answer: {}", "answer: {}", "**Answer:** {}", "I compared both.\nAnswer: {}."),
    "ranking": ("Ranks: {}", "ranks: {}", "**Ranks:** {}", "I looked at all.\nRanks: {}"),
}


@dataclass(frozen=True, slots=True)
class Traits:
    """Parameters of a simulated observer; see the module's description for units."""

    noise: float = 5.0
    tie: float = 3.0
    bias: float = 0.0
    lapse: float = 0.0
    seed: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """What a prompt asks: the answer's form, and for each stimulus its images.

    ``stimuli`` holds one tuple of image positions per stimulus, reference first where there is
    one; ``color`` says that they are pairs of photographs to compare by colour.
    """

    answer: str
    stimuli: tuple[tuple[int, ...], ...]
    color: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A reply and what it was drawn from.

    ``answer`` is the number or word that counts, at position ``at`` of ``text``; ``odds`` the
    probability of each it could have been, {} where they are not known (rankings, refusals).
    """

    text: str
    answer: str = ""
    at: int = 0
    odds: Mapping[str, float] = field(default_factory=dict)


class Observer:
    """Replies to (text, images); pure but for a memory of statistics by image hash."""

    def __init__(self, traits: Traits, *, random: bool = False) -> None:
        self.traits = traits
        self._random = random
        self._quality: dict[tuple[str, ...], float] = {}

    def reply(self, text: str, images: Sequence[bytes], *, repeat: int = 0) -> str:
        """One reply. ``images`` are the encoded files, in order; ``repeat`` draws noise anew."""
        return self.say(text, images, repeat=repeat).text

    def say(self, text: str, images: Sequence[bytes], *, repeat: int = 0) -> Said:
        """One reply with the odds of its answer, as token probabilities would tell them."""
        hashes = [hashlib.sha256(data).hexdigest() for data in images]
        task = read_task(text, len(images))
        if task is None:
            return Said("I cannot tell what I am asked to do with these images.")
        draw = _rng(self.traits, text, hashes, repeat)
        if draw.random() < self.traits.lapse:
            return Said(str(draw.choice(_REFUSALS)))
        if self._random:
            clear = perceived = [float(draw.uniform(0, 100)) for _ in task.stimuli]
        else:
            clear = [self._seen(group, images, hashes, task) for group in task.stimuli]
            perceived = [q + float(draw.normal(0, self.traits.noise)) for q in clear]
        answer = _ANSWERS[task.answer](perceived, self.traits, draw)
        phrase = str(draw.choice(_PHRASES[task.answer]))
        odds = {} if self._random else _ODDS[task.answer](clear, self.traits)
        word = next((w for w in odds if w == answer or (w.isalpha() and w in answer)), "")
        at = phrase.index("{}") + answer.index(word)
        return Said(phrase.format(answer), word, at, odds if word else {})

    def _seen(
        self,
        group: tuple[int, ...],
        images: Sequence[bytes],
        hashes: Sequence[str],
        task: Task,
    ) -> float:
        """Quality before noise."""
        key = tuple(hashes[k] for k in group)
        if key not in self._quality:
            decoded = [decode(images[k]) for k in group]
            self._quality[key] = _quality(decoded, color=task.color)
        return self._quality[key]


class InProcessObserver:
    """Backend for `Observer`: reads the same bytes that an endpoint would be sent."""

    paid = False

    def __init__(self, spec: ModelSpec) -> None:
        self._observer = make_observer(spec)
        parameters = sorted(spec.parameters.items())
        self.fingerprint = json.dumps(["simulated", spec.model, parameters])

    async def start(self) -> None:
        return None

    async def ask(self, prompt: Prompt) -> Reply:
        started = time.perf_counter()
        said = await asyncio.to_thread(self._say, prompt)
        tokens = token_logprobs(said, prompt.top_logprobs) if prompt.top_logprobs else None
        return Reply(
            said.text, served_model="simulated", latency_s=time.perf_counter() - started,
            created_at=time.time(), logprobs=pack(tokens),
        )  # fmt: skip

    def _say(self, prompt: Prompt) -> Said:
        images = [image.read() for image in prompt.images]
        return self._observer.say(prompt.text, images, repeat=prompt.repeat)

    async def close(self) -> None:
        return None


def make_observer(spec: ModelSpec) -> Observer:
    """An observer from a model spec; an unknown parameter is a `UsageError` that lists them."""
    known = {trait.name for trait in fields(Traits)}
    for name, value in spec.parameters.items():
        if name not in known:
            raise UsageError(f"{spec.name}: no parameter {name!r}; known: {', '.join(known)}")
        if not 0 <= value < float("inf") and name != "bias":
            raise UsageError(f"{spec.name}: {name}={value:g} must be a number >= 0")
    return Observer(Traits(**spec.parameters), random=spec.model == "random")


def read_task(text: str, n_images: int) -> Task | None:
    """Read a prompt as a stranger would; None when it does not say what to do.

    Relies on the two parts that every template must have: the image key and the answer's form.
    """
    roles = {int(k): role.strip() for k, role in _KEY.findall(text)}
    answer = next(
        (a for word, a in _FORMS.items() if re.search(rf"^{word}: ", text, re.MULTILINE)), None
    )
    if answer is None or sorted(roles) != list(range(1, n_images + 1)):
        return None
    tests = {k - 1: role for k, role in roles.items() if "test" in role}
    pairs: dict[str, list[int]] = {}
    for k, role in tests.items():
        pairs.setdefault(role.partition(" of ")[2] or role, []).append(k)
    color = any("photograph of" in role for role in tests.values())
    reference = [k - 1 for k, role in roles.items() if role == "the reference"]
    return Task(answer, tuple(tuple(reference + group) for group in pairs.values()), color)


def decode(data: bytes) -> NDArray[np.float32]:
    """An encoded image as RGB in [0, 1], shape (H, W, 3)."""
    import numpy as np
    import PIL.Image

    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


def _quality(images: Sequence[NDArray[np.float32]], *, color: bool) -> float:
    from iqa_checks.models import statistics

    if color:
        return statistics.color_likeness(images[0], images[1])
    if len(images) == 2:
        return statistics.full_reference_quality(images[0], images[1])
    return statistics.no_reference_quality(images[0])


def _rng(traits: Traits, text: str, hashes: Sequence[str], repeat: int) -> np.random.Generator:
    from iqa_checks.protocols import rng

    return rng("observer", traits, text, *hashes, repeat)


def _rate(perceived: Sequence[float], _traits: Traits, _draw: Any) -> str:
    return str(round(min(100.0, max(0.0, perceived[0]))))


def _prefer(perceived: Sequence[float], traits: Traits, draw: np.random.Generator) -> str:
    gap = perceived[0] - perceived[1] + traits.bias
    if abs(gap) < traits.tie:
        return str(draw.choice(("comparable", "comparable quality")))
    words = ("first", "the first image") if gap > 0 else ("second", "the second image")
    return str(draw.choice(words))


def _rank(perceived: Sequence[float], traits: Traits, _draw: Any) -> str:
    """Ranks from 0; a stimulus within the tie threshold of the one below shares its rank."""
    order = sorted(range(len(perceived)), key=lambda k: perceived[k])
    ranks, rank = {order[0]: 0}, 0
    for below, k in itertools.pairwise(order):
        rank += perceived[k] - perceived[below] >= traits.tie
        ranks[k] = rank
    return ", ".join(f"{'ABCDEFGHIJ'[k]}={ranks[k]}" for k in range(len(perceived)))


def token_logprobs(said: Said, n_top: int, *, digits: bool = False) -> list[dict[str, Any]]:
    """The reply as tokens in OpenAI's form, numbers whole or by ``digits``.

    All tokens but the answer's were certain.
    """
    end = said.at + len(said.answer)
    head, tail = said.text[: said.at], said.text[end:]
    tokens = [_token(head, {head: 1.0}, n_top)] if head else []
    if said.odds and digits and said.answer.isdigit():
        tokens += _digit_tokens(said, n_top)
    elif said.answer:
        tokens.append(_token(said.answer, said.odds, n_top))
    return tokens + ([_token(tail, {tail: 1.0}, n_top)] if tail else [])


def _digit_tokens(said: Said, n_top: int) -> list[dict[str, Any]]:
    """A number digit by digit, each with its odds after the digits before it."""
    tokens = []
    for k, digit in enumerate(said.answer):
        odds: dict[str, float] = {}
        for number, p in said.odds.items():
            if number[:k] == said.answer[:k]:
                name = number[k : k + 1] or "<|end|>"
                odds[name] = odds.get(name, 0.0) + p
        total = sum(odds.values())
        tokens.append(_token(digit, {d: p / total for d, p in odds.items()}, n_top))
    return tokens


def _token(text: str, odds: Mapping[str, float], n_top: int) -> dict[str, Any]:
    likely = sorted(((p, name) for name, p in odds.items() if p > 0), reverse=True)[:n_top]
    return {
        "token": text,
        "logprob": math.log(odds[text]) if odds.get(text) else -9999.0,
        "top_logprobs": [{"token": name, "logprob": math.log(p)} for p, name in likely],
    }


def _rating_odds(clear: Sequence[float], traits: Traits) -> dict[str, float]:
    """Probability of each rating: a normal deviate, rounded and cut off at 0 and 100."""
    if traits.noise == 0:
        return {_rate(clear, traits, None): 1.0}
    below = [_normal_cdf((n + 0.5 - clear[0]) / traits.noise) for n in range(100)]
    return {
        str(n): high - low
        for n, (low, high) in enumerate(itertools.pairwise([0.0, *below, 1.0]))
        if high > low
    }


def _preference_odds(clear: Sequence[float], traits: Traits) -> dict[str, float]:
    gap, spread = clear[0] - clear[1] + traits.bias, traits.noise * 2**0.5
    if spread == 0:
        known = "comparable" if abs(gap) < traits.tie else "first" if gap > 0 else "second"
        return {known: 1.0}
    second = _normal_cdf((-traits.tie - gap) / spread)
    first = 1 - _normal_cdf((traits.tie - gap) / spread)
    return {"first": first, "second": second, "comparable": max(0.0, 1 - first - second)}


def _normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / 2**0.5))


_FORMS = {"Score": "rating", "Answer": "preference", "Ranks": "ranking"}
_ANSWERS: Mapping[str, Callable[[Sequence[float], Traits, Any], str]] = {
    "rating": _rate,
    "preference": _prefer,
    "ranking": _rank,
}
_ODDS: Mapping[str, Callable[[Sequence[float], Traits], dict[str, float]]] = {
    "rating": _rating_odds,
    "preference": _preference_odds,
    "ranking": lambda _clear, _traits: {},
}
