"""Trials of the three psychophysical protocols, what an observer answers, and which trials to ask.

A trial is a tuple of stimulus positions in presentation order. A design is a generator: it yields
rounds of trials and is sent the judgements of each round, so that an adaptive design (Swiss
pairing) and a fixed one look the same to the caller. A round is a barrier, and a design depends on
nothing but its arguments and the judgements, so the same replies give the same trials whatever the
number of workers or interruptions.

Sources: Wu et al. 2024, section 3.1 (three-way double-stimulus answers, lists of L = 4); ITU-R
BT.500 (procedures). The designs' figures come from ``tests/benchmarks``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from iqa_checks.errors import DesignError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ProtocolName = Literal["single", "double", "multiple"]
PROTOCOLS: tuple[ProtocolName, ...] = ("single", "double", "multiple")
Answer = Literal["rating", "preference", "ranking"]
ANSWERS: dict[ProtocolName, Answer] = {
    "single": "rating", "double": "preference", "multiple": "ranking",
}  # fmt: skip
Preset = Literal["sound", "paper"]
Choice = Literal["first", "second", "comparable"]


@dataclass(frozen=True, slots=True)
class Rating:
    """Answer of a single-stimulus trial: ``score`` on 0..100, higher = better."""

    score: float


@dataclass(frozen=True, slots=True)
class Preference:
    """Answer of a double-stimulus trial, in presentation order.

    ``outcome`` is the soft answer where there is one: the probability of "first" and half that of
    "comparable", in 0..1.
    """

    choice: Choice
    outcome: float | None = None

    @property
    def worth(self) -> float:
        """Wins of the first stimulus: the soft outcome, or 1, 0 or half of one as written."""
        written = {"first": 1.0, "second": 0.0, "comparable": 0.5}[self.choice]
        return written if self.outcome is None else self.outcome


@dataclass(frozen=True, slots=True)
class Ranking:
    """Answer of a multiple-stimulus trial: one rank per stimulus in presentation order.

    Higher = better; equal ranks are ties.
    """

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A reply that holds no usable answer: data about the model, counted and gated."""

    reason: str


Judgement = Rating | Preference | Ranking | Unparsed


@dataclass(frozen=True, slots=True)
class Trial:
    """Stimulus positions in presentation order; ``repeat`` counts repetitions of one question."""

    stimuli: tuple[int, ...]
    repeat: int = 0


Round = list[Trial]
Design = Generator[Round, Sequence[Judgement], None]
#: (trials so far, their judgements) -> quality scale of all stimuli, shape (M,)
Scale = Callable[[Sequence[Trial], Sequence[Judgement]], "NDArray[np.float64]"]

LIST_LENGTH = 4
PAIR_LIST_LENGTH = 3  # colour difference: three pairs are six photographs already
ROUND_ROBIN_LIMIT = 11  # inside one reference every pair is asked up to this many stimuli
PAIR_BUDGET = 5  # queries per stimulus, the audit's included
AUDIT_FRACTION = 0.1  # share of pairs also asked in the other order
SWISS_ROUNDS = round(2 * PAIR_BUDGET / (1 + AUDIT_FRACTION))  # a round asks M / 2 pairs


def rng(*parts: object) -> np.random.Generator:
    """A generator that depends on ``parts`` alone, and on their values rather than on `hash`."""
    import numpy as np

    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def single_stimulus(n_stimuli: int) -> Design:
    """Each stimulus once."""
    yield [Trial((i,)) for i in range(n_stimuli)]


def double_stimulus(
    hashes: Sequence[str], groups: Sequence[str], scale: Scale, *, seed: int
) -> Design:
    """Pairs within each group: every pair once up to 11 stimuli, Swiss pairing above.

    Parameters
    ----------
    hashes
        Identity of each stimulus; all ties and orders are settled by it, never by file order.
    groups
        Reference of each stimulus (FR), or the same value for all (NR).
    scale
        Called before each Swiss round with everything judged so far.
    """
    members = _members(groups)
    _at_least(members, 2, "double-stimulus")
    small = {g: m for g, m in members.items() if len(m) <= ROUND_ROBIN_LIMIT}
    large = {g: m for g, m in members.items() if len(m) > ROUND_ROBIN_LIMIT}
    pairs = [p for m in small.values() for p in itertools.combinations(m, 2)]
    asked: list[Trial] = []
    answers: list[Judgement] = []
    for number in range(SWISS_ROUNDS if large else 1):
        fresh = pairs if number == 0 else []
        if large:
            current = scale(asked, answers)
            done = {frozenset(t.stimuli) for t in asked}
            for member in large.values():
                fresh = fresh + _swiss_round(member, hashes, current, done, seed, number)
        trials = _ordered(fresh, hashes, seed)
        trials += _audit(trials, hashes, seed)
        asked += trials
        answers += yield trials


def double_stimulus_paper(n_stimuli: int, groups: Sequence[str], *, seed: int = 20) -> Design:
    """The released code's pairs: every stimulus is the anchor five times, and shown first."""
    members = _members(groups)
    _at_least(members, 2, "double-stimulus")
    draw = rng("paper", "double", seed)
    peers = {i: [j for j in m if j != i] for m in members.values() for i in m}
    yield _numbered(
        [
            Trial((i, peers[i][int(k)]))
            for i in range(n_stimuli)
            for k in draw.integers(len(peers[i]), size=PAIR_BUDGET)
        ]
    )


def multiple_stimulus(
    hashes: Sequence[str],
    groups: Sequence[str],
    *,
    seed: int,
    length: int = LIST_LENGTH,
    lists_per_stimulus: int = 2,
) -> Design:
    """About 2M lists of distinct stimuli, each stimulus in nearly equally many of them.

    A group smaller than ``length`` is asked as one list per presentation.
    """
    members = _members(groups)
    _at_least(members, 2, "multiple-stimulus")
    trials: Round = []
    for member in members.values():
        size = min(length, len(member))
        order = sorted(member, key=lambda i: hashes[i])
        draw = rng("multiple", seed, *(hashes[i] for i in order))
        trials += _balanced_lists(order, size, lists_per_stimulus * len(member), draw)
    yield trials


def multiple_stimulus_paper(
    n_stimuli: int, groups: Sequence[str], *, seed: int = 20, length: int = LIST_LENGTH
) -> Design:
    """The released code's lists: every stimulus anchors two random lists, and is shown first.

    Unlike the released code no list repeats an image: nothing can be read out of a tie of a
    picture with itself.
    """
    members = _members(groups)
    _at_least(members, 2, "multiple-stimulus")
    draw = rng("paper", "multiple", seed)
    peers = {i: [j for j in m if j != i] for m in members.values() for i in m}
    trials: Round = []
    for i in range(n_stimuli):
        for _ in range(2):
            others = draw.permutation(peers[i])[: length - 1]
            trials.append(Trial((i, *map(int, others))))
    yield _numbered(trials)


def repeated(design: Design, repeats: int) -> Design:
    """Ask every trial of ``design`` ``repeats`` times; the design sees the first answers."""
    try:
        trials = next(design)
        while True:
            answers = yield [
                Trial(t.stimuli, t.repeat + r * 1000) for r in range(repeats) for t in trials
            ]
            trials = design.send(answers[: len(trials)])
    except StopIteration:
        return


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return members


def _at_least(members: dict[str, list[int]], needed: int, protocol: str) -> None:
    for group, member in members.items():
        if len(member) < needed:
            of = f" of reference {group[:12]}…" if group else ""
            raise DesignError(
                f"{protocol} trials need at least {needed} stimuli{of}, got {len(member)}; "
                "add stimuli or use the single-stimulus protocol (-k single)"
            )


def _swiss_round(
    member: Sequence[int],
    hashes: Sequence[str],
    current: NDArray[np.float64],
    done: set[frozenset[int]],
    seed: int,
    number: int,
) -> list[tuple[int, int]]:
    """Pair neighbours on the current scale that have not met; one pair per stimulus.

    Scores are rounded to 1e-6 so that solver noise cannot change a pairing, and ties are settled
    by the stimulus hash, salted by the round so that equal stimuli do not meet in the same order.
    """

    def salted(i: int) -> str:
        return hashlib.sha256(f"{seed}:{number}:{hashes[i]}".encode()).hexdigest()

    order = sorted(member, key=lambda i: (-round(float(current[i]), 6), salted(i)))
    if len(order) % 2:  # the one that has met most others sits out
        met = Counter(i for pair in done for i in pair)
        order.remove(max(order, key=lambda i: (met[i], salted(i))))
    pairs = []
    while len(order) > 1:
        i = order.pop(0)
        k = next((k for k, j in enumerate(order) if frozenset((i, j)) not in done), None)
        if k is not None:
            pairs.append((i, order.pop(k)))
    return pairs


def _ordered(pairs: Sequence[tuple[int, int]], hashes: Sequence[str], seed: int) -> Round:
    """Presentation order of each pair from hash(seed, a, b): the same for every model."""
    trials = []
    for i, j in pairs:
        low, high = (i, j) if hashes[i] <= hashes[j] else (j, i)
        digest = hashlib.sha256(f"{seed}:{hashes[low]}:{hashes[high]}".encode()).digest()
        trials.append(Trial((low, high) if digest[0] % 2 else (high, low)))
    return trials


def _audit(trials: Round, hashes: Sequence[str], seed: int) -> Round:
    """A fixed share of the pairs, chosen by hash, in the other order as well."""

    def chosen(trial: Trial) -> bool:
        pair = ":".join(sorted(hashes[i] for i in trial.stimuli))
        digest = hashlib.sha256(f"audit:{seed}:{pair}".encode()).digest()
        return digest[0] < 256 * AUDIT_FRACTION

    return [Trial(t.stimuli[::-1], t.repeat) for t in trials if chosen(t)]


def _balanced_lists(
    order: Sequence[int], size: int, n_lists: int, draw: np.random.Generator
) -> Round:
    """Deal shuffled decks into hands of ``size``: every stimulus appears within one of the others.

    A hand that would hold a stimulus twice (at the seam of two decks) swaps the duplicate for the
    next card that it does not hold.
    """
    deck: list[int] = []
    trials: Round = []
    for _ in range(n_lists):
        hand: list[int] = []
        while len(hand) < size:
            card = next((c for c in deck if c not in hand), None)
            if card is None:
                deck += [order[int(k)] for k in draw.permutation(len(order))]
                continue
            deck.remove(card)
            hand.append(card)
        trials.append(Trial(tuple(hand[int(k)] for k in draw.permutation(size))))
    return _numbered(trials)


def _numbered(trials: Round) -> Round:
    """Give identical presentations distinct repeat numbers, so that each is asked anew."""
    counts: dict[tuple[int, ...], int] = {}
    numbered = []
    for trial in trials:
        repeat = counts.get(trial.stimuli, 0)
        counts[trial.stimuli] = repeat + 1
        numbered.append(Trial(trial.stimuli, repeat))
    return numbered
