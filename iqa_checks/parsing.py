"""From the text of a reply to a judgement, or to `Unparsed` with a reason. Never to a guess.

Reading rules
-------------
1.  Text is normalised first: Unicode NFKC (full-width digits become digits), no control or ANSI
    codes, no Markdown emphasis. What stands inside ``<think>`` tags is reasoning and is not read;
    where ``<answer>`` tags or a ``\\boxed{}`` exist, the last of them is all that is read.
    A placeholder copied from the prompt ("<number from 0 to 100>") is not an answer.
2.  A statement is a marker ("Score", "Answer", "Ranks" or a word for them, also in other
    languages, also a JSON key) followed by a value. The last statement wins over earlier ones and
    over any number in the reasoning.
3.  Without a statement a reply is read only if it consists of the value alone, or says the value
    in a form that cannot be anything else ("85/100", "the second image is better",
    "B > D > A > C").
4.  A statement that offers two values ("first or second") is no answer. A range ("80-85") reads
    as its middle.
5.  A rating is resolved against an explicit denominator ("7.5/10" is 75, "85%" is 85) and must
    then lie in 0..100.
6.  A preference names the first, the second, or neither. "2", "B", "image 2" and "the latter" name
    the second. Where images precede the two tests (a reference), image numbers count either from
    them or from the tests: a number that could be both is no answer.
7.  A ranking gives one rank per stimulus, higher = better, as "A=2, B=0, ..." or as a bare list in
    presentation order, whole numbers from 0 or from 1; or it orders all stimuli ("B > D = A > C",
    "best to worst: ..."). Every stimulus must occur exactly once.
8.  Anything else is `Unparsed`: 'empty', 'refusal', 'truncated', 'ambiguous', 'out of range',
    'incomplete ranking' or 'no answer'.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from iqa_checks.protocols import Answer, Choice, Judgement, Preference, Ranking, Rating, Unparsed

MAX_CHARS = 20_000  # of an overlong reply the end is read: that is where an answer stands


def parse_reply(
    text: str,
    answer: Answer,
    *,
    n_stimuli: int = 4,
    n_before: int = 0,
    finish_reason: str = "stop",
) -> Judgement:
    """Read one reply by the rules above.

    Parameters
    ----------
    answer
        What was asked for: 'rating', 'preference' or 'ranking'.
    n_stimuli
        Length of the list, for a ranking.
    n_before
        How many images were shown before those to judge (reference, exemplars).
    finish_reason
        What the endpoint says; 'length' makes a reply without an answer 'truncated'.

    Returns
    -------
    Rating, Preference, Ranking or Unparsed
    """
    plain = _normalised(text)
    if not plain:
        return Unparsed("truncated" if finish_reason == "length" else "empty")
    judgement = _READERS[answer](plain, n_stimuli, n_before)
    if isinstance(judgement, Unparsed) and judgement.reason == "no answer":
        if finish_reason == "length":
            return Unparsed("truncated")
        if finish_reason == "content_filter" or _REFUSAL.search(plain):
            return Unparsed("refusal")
    return judgement


_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_THINK = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|$)", re.DOTALL | re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}")
_PLACEHOLDER = re.compile(r"<[^<>]{0,80}>")
_REFUSAL = re.compile(
    r"\b(sorry|unable|can(?:no|')t|cannot|could not|don't have the ability|not able|as an ai)\b"
    r"|无法|抱歉|对不起|不能|申し訳|できません|lo siento|no puedo|désolé|ne peux pas|leider|nicht in der"
    r"|к сожалению|не могу",
    re.IGNORECASE,
)


def _normalised(text: str) -> str:
    text = _ANSI.sub("", unicodedata.normalize("NFKC", text[-MAX_CHARS:]))
    text = _THINK.sub(" ", text)
    for whole in (_ANSWER_TAG, _BOXED):
        found = [inner for inner in whole.findall(text) if inner.strip()]
        if found:
            text = ("" if _MARKED.search(found[-1]) else "answer: ") + found[-1]
    text = _PLACEHOLDER.sub(" ", text)
    text = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " for c in text)
    return re.sub(r"[*`#\"'“”‘’$\\_]+", "", text).strip()


# --- ratings -----------------------------------------------------------------------------------

_MARKER_WORDS = (
    r"(?:final |overall |quality |total )*(?:score|rating|answer|result|rate)"
    r"|評分|评分|分数|得分|打分|スコア|点数|評価|점수|punteggio|puntuaci[oó]n|puntaje|calificaci[oó]n"
    r"|nota|note|bewertung|punktzahl|wertung|оценка|балл"
)
_MARKED = re.compile(rf"(?:{_MARKER_WORDS}|ranks?|ranking)\s*[:=]", re.IGNORECASE)
_NUMBER = r"[-−]?\d+(?:[.,]\d+)?"
_VALUE = re.compile(
    rf"(?P<low>{_NUMBER})(?:\s*(?:-|–|—|~|to|and|到|至|bis)\s*(?P<high>{_NUMBER}))?\s*"
    r"(?:(?:/|out of|von|sur|de|из|of)\s*(?P<scale>\d+(?:[.,]\d+)?)|%|points?|分)?",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:{_MARKER_WORDS})\s*(?:(?:of|for) (?:the )?(?:test )?image\s*)?"
    r"(?:is|was|would be|at|of|为|是|は|:|=|-|–|：|es|ist|est|of about|about|around|approximately|\s)*"
    rf"(?P<value>{_NUMBER}.*)",
    re.IGNORECASE,
)
_EXPLICIT = re.compile(rf"({_NUMBER})\s*(?:/|out of)\s*(\d+)", re.IGNORECASE)
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORD_NUMBER = re.compile(
    rf"\b(?:({'|'.join(_TENS[2:])})(?:[\s-]+({'|'.join(_UNITS[1:10])}))?"
    rf"|({'|'.join(_UNITS)})|(?:one |a )?(hundred))\b",
    re.IGNORECASE,
)


def _read_rating(text: str, _n_stimuli: int, _n_before: int) -> Judgement:
    text = _WORD_NUMBER.sub(_digits, text)
    stated = [m["value"] for line in text.splitlines() if (m := _last(_STATED, line))]
    if stated:
        return _rating(stated[-1])
    if re.fullmatch(rf"\s*{_VALUE.pattern}[\s.!]*", text, re.IGNORECASE):
        return _rating(text.strip())
    explicit = _EXPLICIT.findall(text)
    if explicit:
        return _rating("/".join(explicit[-1]))
    return Unparsed("no answer")


def _rating(value: str) -> Judgement:
    """The value at the start of ``value``, if nothing after it on the line competes."""
    found = _VALUE.match(value)
    assert found is not None
    rest = value[found.end() :]
    if re.match(rf"\s*(?:or|,|/|oder|或)\s*{_NUMBER}", rest):
        return Unparsed("ambiguous")
    low = _float(found["low"])
    high = _float(found["high"]) if found["high"] else low
    scale = _float(found["scale"]) if found["scale"] else 100.0
    if scale <= 0 or high < low:
        return Unparsed("ambiguous")
    score = 100.0 * (low + high) / 2 / scale
    return Rating(score) if 0 <= score <= 100 else Unparsed("out of range")


def _digits(match: re.Match[str]) -> str:
    tens, unit, small, _hundred = match.groups()
    if tens:
        return str(
            10 * _TENS.index(tens.lower()) + (_UNITS.index(unit.lower()) if unit else 0)
        )
    return str(_UNITS.index(small.lower())) if small else "100"


def _float(text: str) -> float:
    return float(text.replace(",", ".").replace("−", "-"))


# --- preferences -------------------------------------------------------------------------------

_TOKENS: tuple[tuple[Choice, str], ...] = (
    (
        "comparable",
        r"comparable|the same|same quality|equal(?:ly)?|tie|similar|indistinguishable|neither|both"
        r"|相当|相同|一样|差不多|同等|同程度|gleich|vergleichbar|similaires?|comparables?|igual|сопоставим",
    ),
    (
        "first",
        r"first|1st|former|(?:test )?image (?:1|one|a)\b|第一|前者|最初|primera?|premi[eè]re?|erste[srn]?"
        r"|перв",
    ),
    (
        "second",
        r"second|2nd|latter|(?:test )?image (?:2|two|b)\b|第二|后者|後者|segunda?|seconde?|deuxi[eè]me"
        r"|zweite[srn]?|втор",
    ),
)
_CHOICE_STATED = re.compile(
    r"(?:answer|choice|decision|verdict|preference|preferred|result|score|答案|回答|选择|antwort|respuesta"
    r"|r[eé]ponse|ответ)\s*(?:is|:|=|：|为|是|は)+\s*(?P<value>[^\n]+)",
    re.IGNORECASE,
)
_BARE = {"a": "first", "1": "first", "one": "first", "b": "second", "2": "second", "two": "second"}
_BETTER = re.compile(
    r"better|prefer|superior|higher quality|more similar|closer|更好|更高|更接近|besser|meilleur|mejor|лучше",
    re.IGNORECASE,
)
_WORSE = re.compile(r"worse|inferior|lower quality|less similar|更差|schlechter", re.IGNORECASE)


def _read_preference(text: str, _n_stimuli: int, n_before: int) -> Judgement:
    stated = [m["value"] for m in _CHOICE_STATED.finditer(text)]
    if stated:
        return _choice(stated[-1], n_before)
    if len(text.split()) <= 6:
        return _choice(text, n_before)
    sentences = [s for s in re.split(r"(?<=[.!?。])\s*|\n", text) if s.strip()]
    for sentence in reversed(sentences):
        compares = _BETTER.search(sentence) or _WORSE.search(sentence)
        judgement = _choice(sentence, n_before)
        if isinstance(judgement, Preference) and (
            compares or judgement.choice == "comparable"
        ):
            return judgement
    return Unparsed("no answer")


def _choice(value: str, n_before: int) -> Judgement:
    bare = re.sub(r"[^\w]+", " ", value).strip().lower()
    if bare in _BARE:
        if bare.isdigit() and n_before:
            return Unparsed("ambiguous")
        return Preference("first" if _BARE[bare] == "first" else "second")
    comparative = re.split(r"\b(?:than|compared (?:to|with)|over)\b|比", value, maxsplit=1)
    named = _named(comparative[0], n_before)
    if len(named) != 1:
        return Unparsed("ambiguous" if named else "no answer")
    (choice,) = named
    if choice != "comparable" and _WORSE.search(comparative[0]):
        return Preference("second" if choice == "first" else "first")
    return Preference(choice)


def _named(text: str, n_before: int) -> set[Choice]:
    """Which of the three answers ``text`` names."""
    named: set[Choice] = set()
    for choice, pattern in _TOKENS:
        if re.search(rf"(?<![a-z])(?:{pattern})", text, re.IGNORECASE):
            named.add(choice)
    numbers = {int(k) for k in re.findall(r"image (\d+)", text, re.IGNORECASE)}
    if n_before and numbers:
        named = {"second"} if numbers == {n_before + 2} else {"first", "second"}
    if re.search(r"\bnot (?:comparable|the same|equal)", text, re.IGNORECASE):
        named.discard("comparable")
    return named


# --- rankings ----------------------------------------------------------------------------------

_LETTERS = "ABCDEFGHIJ"
_ITEM = r"(?:test\s+)?(?:image|pair|photo|图像|图片|图)?\s*#?(?P<item>\b[A-J]\b|\b\d{1,2}\b)"
_LABELLED = re.compile(rf"{_ITEM}\s*(?:=|:|->|→|\|)\s*(?:rank\s*)?(?P<rank>-?\d+(?:\.\d+)?)", re.I)
_LIST = re.compile(
    r"(?:ranks?|rankings?|scores?|answer|排名|排序)\s*(?:is|are|:|=|：)*\s*[\[(]?\s*"
    r"(?P<list>-?\d+(?:\.\d+)?(?:\s*[,;\s]\s*-?\d+(?:\.\d+)?)+)",
    re.IGNORECASE,
)
_CHAIN = re.compile(
    r"(?:(?:test\s+)?(?:image|pair|photo|图像|图片|图)?\s*#?(?:\b[A-J]\b|\b\d{1,2}\b)\s*(?:>|<|=|≈|~)+\s*)+"
    r"(?:test\s+)?(?:image|pair|photo|图像|图片|图)?\s*#?(?:\b[A-J]\b|\b\d{1,2}\b)",
    re.IGNORECASE,
)
_WORST_FIRST = re.compile(r"worst to best|lowest to highest|从差到好|ascending", re.IGNORECASE)
_BEST_FIRST = re.compile(r"best to worst|highest to lowest|从好到差|descending", re.IGNORECASE)


def _read_ranking(text: str, n: int, n_before: int) -> Judgement:
    readings: list[tuple[int, Judgement]] = []
    for found, reading in (
        (_labelled(text, n, n_before)),
        (_bare_list(text, n)),
        (_chain(text, n, n_before)),
        (_ordered_list(text, n, n_before)),
    ):
        if reading is not None:
            readings.append((found, reading))
    usable = [r for r in readings if isinstance(r[1], Ranking)]
    if usable:
        return max(usable, key=lambda reading: reading[0])[1]
    return readings[-1][1] if readings else Unparsed("no answer")


_Found = tuple[int, Judgement | None]


def _labelled(text: str, n: int, n_before: int) -> _Found:
    """ "A=2, B=0, C=3, D=1": the last complete set of assignments."""
    assigned: dict[str, float] = {}
    end = -1
    for match in _LABELLED.finditer(text):
        assigned[match["item"].upper()] = float(match["rank"])
        end = match.end()
    if not assigned:
        return -1, None
    positions = _positions(list(assigned), n, n_before)
    if positions is None:
        return end, Unparsed("incomplete ranking")
    ranks = [0.0] * n
    for position, rank in zip(positions, assigned.values(), strict=True):
        ranks[position] = rank
    return end, _ranking(ranks, n)


def _bare_list(text: str, n: int) -> _Found:
    match = _last(_LIST, text)
    if match is None:
        bare = re.fullmatch(r"\s*[\[(]?((?:-?\d+[\s,;]*)+)[\])]?[\s.]*", text)
        numbers = re.findall(r"-?\d+", bare[1]) if bare else []
        if len(numbers) < 2:
            return -1, None
        return len(text), _ranking([float(k) for k in numbers], n)
    numbers = re.findall(r"-?\d+(?:\.\d+)?", match["list"])
    return match.end(), _ranking([float(k) for k in numbers], n)


def _chain(text: str, n: int, n_before: int) -> _Found:
    """ "B > D = A > C"."""
    match = _last(_CHAIN, text)
    if match is None:
        return -1, None
    chain = match[0]
    if ">" in chain and "<" in chain:
        return match.end(), Unparsed("ambiguous")
    if ">" not in chain and "<" not in chain and not re.search(r"[A-J].*[A-J]", chain):
        return -1, None
    levels = [re.findall(r"\b[A-Ja-j]\b|\b\d{1,2}\b", part) for part in re.split(r"[<>]+", chain)]
    if ">" in chain:
        levels.reverse()
    return match.end(), _levels(levels, n, n_before)


def _ordered_list(text: str, n: int, n_before: int) -> _Found:
    """ "From best to worst: D, B, A, C"."""
    for pattern, best_first in ((_BEST_FIRST, True), (_WORST_FIRST, False)):
        match = _last(pattern, text)
        if match is None:
            continue
        tail = text[match.end() : match.end() + 200]
        items = re.findall(r"\b[A-J]\b|\b\d{1,2}\b", tail)[:n]
        levels = [[item] for item in items]
        return match.end(), _levels(levels[::-1] if best_first else levels, n, n_before)
    return -1, None


def _levels(levels: Sequence[Sequence[str]], n: int, n_before: int) -> Judgement:
    """A ranking from groups of equal items, worst group first."""
    items = [item.upper() for level in levels for item in level]
    positions = _positions(items, n, n_before)
    if positions is None:
        return Unparsed("incomplete ranking")
    ranks = [0] * n
    rank_of = [k for k, level in enumerate(levels) for _ in level]
    for position, rank in zip(positions, rank_of, strict=True):
        ranks[position] = rank
    return Ranking(tuple(ranks))


def _positions(items: Sequence[str], n: int, n_before: int) -> list[int] | None:
    """Presentation positions of labels; None unless each stimulus is named exactly once."""
    if len(items) != n or len(set(items)) != n:
        return None
    if all(item in _LETTERS[:n] for item in items):
        return [_LETTERS.index(item) for item in items]
    if not all(item.isdigit() for item in items):
        return None
    numbers = [int(item) for item in items]
    for first in (1, n_before + 1):
        if sorted(numbers) == list(range(first, first + n)):
            return [number - first for number in numbers]
    return None


def _ranking(ranks: Sequence[float], n: int) -> Judgement:
    if len(ranks) != n:
        return Unparsed("incomplete ranking")
    low, high = min(ranks), max(ranks)
    if any(rank != int(rank) for rank in ranks) or low < 0 or high > n or (low == 0 and high == n):
        return Unparsed("out of range")
    return Ranking(tuple(int(rank) for rank in ranks))


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):
        pass
    return match


_READERS: dict[Answer, Callable[[str, int, int], Judgement]] = {
    "rating": _read_rating,
    "preference": _read_preference,
    "ranking": _read_ranking,
}
