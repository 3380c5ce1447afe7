"""Soft answers: what the model's token probabilities say beside the one answer that it wrote.

A written answer is one draw from a distribution over answers. Where the endpoint returns the
log-probabilities of the tokens, the mean of that distribution costs no further call: an expected
rating, or the probability that the first of a pair is preferred. So do Q-Bench (Wu et al. 2024,
two words) and Compare2Score (Zhu et al. 2024, five levels); here the answers are those the prompts
ask for: a number, and first, second or comparable. Rankings stay as written: the probability of a
whole order is not to be had from the tokens of one.

Rules
-----
1.  The answer's place in the text is found by its effect: a number or word is the answer if the
    text with another in its place is read as that other answer. What the reader of written answers
    does not understand has no soft reading either.
2.  A number may be one token ("85") or one a digit ("8", "5"). An alternative token of the same
    length keeps its place value; shorter or longer ones are numbers of their own. What would have
    followed an alternative digit is not known, so that it stands for the middle of the numbers that
    it begins ("8" of a written 75 for 84.5), or for one of another length near 10 and 100 ("1"
    beside a written 96 for 100). Over simulated observers that comes nearer to the mean of whole
    numbers than the digits that followed the written one (RMS 0.7 to 1.6 points against 1.1 to
    2.2, and 1 to 12 for the written answer; ``tests/benchmarks/study_soft.py``).
3.  A preference is the sum over paths: at each token of the answer, alternatives that begin one of
    the three words count for it, and the written token leads on.
4.  Candidates that are no answer are left out, and the rest are normalised.

`pack` makes what the reply store keeps of an endpoint's log-probabilities, `soften` reads it. Both
take untrusted input: whatever is malformed gives '' and None.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from iqa_checks.protocols import Choice, Judgement, Preference, Rating

TOP_LOGPROBS = 20  # alternatives a token: the most that chat endpoints give
MAX_PACKED = 16_000  # characters kept of one reply: the answer mostly stands at its end
MAX_TOKEN = 64  # characters of one token
LEAST = 1e-4  # a less likely alternative moves no rating by more than a hundredth
PROBES = 12  # numbers or words tried as the answer, from the end

Read = Callable[[str], Judgement]


@dataclass(frozen=True, slots=True)
class _Token:
    """A token at its place in the text; ``candidates`` are (text, probability), its own too."""

    start: int
    text: str
    candidates: tuple[tuple[str, float], ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


# --- what is kept ------------------------------------------------------------------------------


def pack(content: Any) -> str:
    """The log-probabilities of a chat completion (``choices[0].logprobs.content``) as short JSON.

    A list of ``[token, alternative, log-probability, ...]``, the last tokens of the reply, as many
    as fit; '' where there are none. In-process engines hand over the same form: a list of
    ``{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}``.
    """
    if not isinstance(content, list):
        return ""
    kept: list[str] = []
    size = 2
    for entry in reversed(content):
        line = _packed_token(entry)
        size += len(line) + 1
        if not line or size > MAX_PACKED:
            break
        kept.append(line)
    known = any('",' in line for line in kept)  # a token alone says nothing
    return f"[{','.join(reversed(kept))}]" if known else ""


def _packed_token(entry: Any) -> str:
    """One token as JSON, '' for what is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return ""
    top = entry.get("top_logprobs")
    found: dict[str, float] = {}
    for candidate in [*(top if isinstance(top, list) else ()), entry]:
        name, value = _candidate(candidate)
        if name is not None and math.exp(value) >= LEAST:
            found.setdefault(name, round(value, 4))
    best = sorted(found.items(), key=lambda item: -item[1])[: TOP_LOGPROBS + 1]
    flat = [part for name, value in best for part in (name, value)]
    return json.dumps([entry["token"][:MAX_TOKEN], *flat], separators=(",", ":"))


def _candidate(candidate: Any) -> tuple[str | None, float]:
    """Token and log-probability, (None, 0) for what is none."""
    if not isinstance(candidate, dict):
        return None, 0.0
    name: Any = candidate.get("token")
    value: Any = candidate.get("logprob")
    if not isinstance(name, str) or type(value) not in (int, float) or not value <= 1e-3:
        return None, 0.0
    return name[:MAX_TOKEN], min(0.0, max(-100.0, float(value)))


def _unpacked(packed: str) -> list[tuple[str, tuple[tuple[str, float], ...]]]:
    """Tokens with their alternatives' probabilities; [] for what is not as `pack` writes it."""
    try:
        lines = json.loads(packed)
        return [
            (str(line[0]), tuple(
                (str(name), math.exp(min(0.0, float(value))))
                for name, value in zip(line[1::2], line[2::2], strict=True)
            ))
            for line in lines
        ]  # fmt: skip
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return []


def _placed(text: str, packed: str) -> list[_Token]:
    """The kept tokens at their places in ``text``, from the end as far as they agree with it.

    Tokens behind the text (its end, blanks that were stripped) stand at its end with no text: their
    alternatives say whether the answer could have gone on.
    """
    placed: list[_Token] = []
    at = len(text)
    for name, candidates in reversed(_unpacked(packed)):
        if name and text[:at].endswith(name):
            at -= len(name)
            placed.append(_Token(at, name, candidates))
        elif at == len(text) and (not name.strip() or _SPECIAL.fullmatch(name)):
            placed.append(_Token(at, "", candidates))
        elif at == len(text) and name.strip() and text.endswith(name.rstrip()):
            at -= len(name.rstrip())
            placed.append(_Token(at, name.rstrip(), candidates))
        else:
            if at and name.lstrip() == text[:at]:  # blanks in front that were stripped
                placed.append(_Token(0, text[:at], candidates))
            break
    return placed[::-1]


_SPECIAL = re.compile(r"<[^<>\s]{1,40}>")  # "<|im_end|>", "</s>"


# --- what it says ------------------------------------------------------------------------------


def soften(judgement: Judgement, text: str, packed: str, read: Read) -> Rating | Preference | None:
    """The soft reading of a reply, None where there is none.

    Parameters
    ----------
    judgement
        How ``text`` is read; a `Ranking` or `Unparsed` has no soft reading.
    packed
        What `pack` kept of the reply's log-probabilities.
    read
        Reads a text as the reply was read.

    Returns
    -------
    Rating
        The expected rating, in 0..100.
    Preference
        The written choice, with ``outcome`` the probability of "first" and half that of
        "comparable".
    """
    if not isinstance(judgement, (Rating, Preference)):
        return None
    tokens = _placed(text, packed)
    if not tokens:
        return None
    if isinstance(judgement, Rating):
        return _expected_rating(judgement, text, tokens, read)
    return _fractional(judgement, text, tokens, read)


# --- ratings -----------------------------------------------------------------------------------

_NUMBER = re.compile(r"(\d+)(\.\d+)?")
_DIGITS = re.compile(r"\s*(\d+)")


def _expected_rating(
    rating: Rating, text: str, tokens: Sequence[_Token], read: Read
) -> Rating | None:
    found = _find_number(rating, text, tokens, read)
    if found is None:
        return None
    match, unit = found
    pieces = [t for t in tokens if t.start < match.end(1) and t.end > match.start(1)]
    after = next((t for t in tokens if t.start >= match.end(1)), None)
    fraction = float(match[2] or 0)
    written = _written(pieces, match)
    if written is None:
        return None
    numbers = _numbers(written, None if match[2] else after, round(100 / unit))
    total = sum(numbers.values())
    if total <= 0:
        return None
    if list(numbers) == [int(match[1])]:
        return rating
    mean = sum(number * p for number, p in numbers.items()) / total
    return Rating(min(100.0, max(0.0, (mean + fraction) * unit)))


def _find_number(
    rating: Rating, text: str, tokens: Sequence[_Token], read: Read
) -> tuple[re.Match[str], float] | None:
    """The number that is the answer, and what one of it is worth in points of the rating."""
    spans = [m for m in _NUMBER.finditer(text) if m.start() >= tokens[0].start]
    for match in spans[: -PROBES - 1 : -1]:
        whole, fraction = int(match[1][:9]), float(match[2] or 0)
        other = whole - 1 if whole > 1 else whole + 1
        tried = read(text[: match.start(1)] + str(other) + text[match.end(1) :])
        if isinstance(tried, Rating) and tried.score > 0:
            unit = tried.score / (other + fraction)
            if math.isclose((whole + fraction) * unit, rating.score, rel_tol=1e-9, abs_tol=1e-9):
                return match, unit
    return None


@dataclass(frozen=True, slots=True)
class _Piece:
    """One token of a written number: its digits, and the alternatives to them.

    An alternative is digits, or '' for the number's end at this place.
    """

    digits: str
    alternatives: dict[str, float]


def _written(pieces: Sequence[_Token], number: re.Match[str]) -> list[_Piece] | None:
    """The number's tokens as digits and alternatives; None where its own are not among them."""
    written: list[_Piece] = []
    for token in pieces:
        before = max(0, number.start(1) - token.start)  # a blank or bracket in the same token
        digits = token.text[before : number.end(1) - token.start]
        lead = token.text[:before].strip()
        found: dict[str, float] = {}
        for name, p in token.candidates:
            said = _leading_digits(name, lead, inside=bool(written))
            if said is not None:
                found[said] = found.get(said, 0.0) + p
        if digits not in found:
            return None
        total = sum(found.values())
        written.append(_Piece(digits, {d: p / total for d, p in found.items()}))
    return written


def _leading_digits(name: str, lead: str, *, inside: bool) -> str | None:
    """The digits that a candidate begins with; inside a number '' for its end; else None."""
    bare = name.strip()
    if lead and bare.startswith(lead):
        bare = bare[len(lead) :]
    match = None if inside and name[:1].isspace() else _DIGITS.match(bare)
    if match:
        return match[1]
    ends = not bare or name[:1].isspace() or _SPECIAL.fullmatch(name)
    return "" if inside and ends else None


def _numbers(written: Sequence[_Piece], after: _Token | None, most: int) -> dict[float, float]:
    """Probability of each number up to ``most`` that the tokens could have written."""
    numbers: dict[float, float] = {}
    whole = "".join(piece.digits for piece in written)

    def add(number: float, p: float) -> None:
        if p > 0 and 0 <= number <= most:
            numbers[number] = numbers.get(number, 0.0) + p

    prefix, mass = "", 1.0
    for piece in written:
        for digits, p in piece.alternatives.items():
            if digits == piece.digits:
                continue
            begun = prefix + digits
            if len(digits) == len(piece.digits):
                add(_completed(begun, len(whole) - len(begun), int(whole), most), mass * p)
            else:
                add(int(begun), mass * p)
        mass *= piece.alternatives[piece.digits]
        prefix += piece.digits
    longer = 0.0
    for name, p in after.candidates if after is not None else ():
        if name[:1].isdecimal() and name[:1].isascii():
            match = _DIGITS.match(name)
            assert match is not None
            add(int(prefix + match[1]), mass * p)
            longer += p
    add(int(prefix), mass * max(0.0, 1.0 - longer))
    return numbers


def _completed(begun: str, n_more: int, target: int, most: int) -> float:
    """The middle of the numbers that ``begun`` and ``n_more`` digits can be.

    ``target`` is the written one. Another number of digits is taken only where numbers change their
    length and that is much nearer: "1" beside 9 begins 10, "1" beside 96 is 100, "9" beside 12 is
    9.
    """
    number = _middle(begun, n_more)
    if number > most and n_more:
        number = _middle(begun, n_more - 1)
    others = [float(most)] if str(most).startswith(begun) else []
    if begun == "1":
        others.append(10.0 ** (n_more + 1))
    if n_more and str(target).startswith("1"):
        others.append(_middle(begun, n_more - 1))
    for other in others:
        if other <= most and 2 * abs(other - target) < abs(number - target):
            number = other
    return number


def _middle(begun: str, n_more: int) -> float:
    return int(begun) * 10.0**n_more + (10.0**n_more - 1) / 2


# --- preferences -------------------------------------------------------------------------------

_WORDS: dict[str, Choice] = {"first": "first", "second": "second", "comparable": "comparable"}
_SHORT: dict[str, Choice] = {"1": "first", "2": "second", "a": "first", "b": "second"}
_OTHER = {"first": "second", "second": "first", "comparable": "first",
          "1": "2", "2": "1", "a": "b", "b": "a"}  # fmt: skip
_CHOICE = re.compile(r"\b(first|second|comparable(?: quality)?|[12ab])\b", re.IGNORECASE)
_FILLER = re.compile(
    r"[\s*_\"'`(\[]*(?:the\s+)?(?:(?:test )?image\s+)?[\s*_\"'`(\[]*", re.IGNORECASE
)
_WORTH: dict[Choice, float] = {"first": 1.0, "second": 0.0, "comparable": 0.5}


def _fractional(
    preference: Preference, text: str, tokens: Sequence[_Token], read: Read
) -> Preference | None:
    match = _find_choice(text, tokens, read)
    if match is None:
        return None
    masses = _choices(_value_tokens(text, tokens, match), match[0].lower() in _SHORT)
    total = sum(masses.values())
    if total <= 0:
        return None
    outcome = sum(_WORTH[choice] * p for choice, p in masses.items()) / total
    return Preference(preference.choice, min(1.0, max(0.0, outcome)))


def _find_choice(text: str, tokens: Sequence[_Token], read: Read) -> re.Match[str] | None:
    """The word that is the answer: another in its place is read as the other answer."""
    spans = [m for m in _CHOICE.finditer(text) if m.start() >= tokens[0].start]
    for match in spans[: -PROBES - 1 : -1]:
        other = _OTHER[match[0].lower().removesuffix(" quality")]
        said = other.upper() if match[0].isupper() else other
        meant = {**_WORDS, **_SHORT}[other]
        if read(text[: match.start()] + said + text[match.end() :]) == Preference(meant):
            return match
    return None


def _value_tokens(
    text: str, tokens: Sequence[_Token], match: re.Match[str]
) -> list[tuple[str, tuple[tuple[str, float], ...]]]:
    """Tokens from where the answer begins: "the" and marks in front of the word belong to it."""
    first = next(k for k, t in enumerate(tokens) if t.end > match.start())
    while first > 0:
        between = text[tokens[first - 1].start : match.start()]
        if not _FILLER.fullmatch(between):
            break
        first -= 1
    lead = max(0, match.start() - tokens[first].start)
    head = tokens[first].text[:lead]
    skip = "" if _FILLER.fullmatch(head) else head  # a token that also ends the label
    shown = []
    for k, token in enumerate(tokens[first:]):
        drop = skip if k == 0 else ""
        shown.append(
            (token.text.removeprefix(drop),
             tuple((name.removeprefix(drop), p) for name, p in token.candidates))
        )  # fmt: skip
    return shown


def _choices(
    tokens: Sequence[tuple[str, tuple[tuple[str, float], ...]]], short: bool
) -> dict[Choice, float]:
    """Probability of each choice, as far as the tokens tell; {} where the written one is lost."""
    masses: dict[Choice, float] = {}
    so_far, path = "", 1.0
    for written, candidates in tokens:
        here = sum(p for name, p in candidates if name == written)
        for name, p in candidates:
            choice = _begun(so_far + name, short)
            if choice in _WORTH:
                masses[choice] = masses.get(choice, 0.0) + path * p
        if _begun(so_far + written, short) != "open":
            return masses if _begun(so_far + written, short) is not None and here > 0 else {}
        so_far += written
        path *= here
    return {}


def _begun(said: str, short: bool) -> Any:
    """The choice that ``said`` begins; 'open' while it could be several, None for none."""
    bare = _FILLER.sub("", said.lower(), count=1).rstrip(" .,;:!*_\"'`)]\n")
    if not bare or any(word.startswith(bare) for word in ("the", "image", "test")):
        return "open"
    if short and bare in _SHORT:
        return _SHORT[bare]
    found = {c for word, c in _WORDS.items() if word.startswith(bare) or bare.startswith(word)}
    return found.pop() if len(found) == 1 else None
