"""Rankings: one rank per stimulus, higher = better."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iqa_checks.parsing.preference import read_prose
from iqa_checks.parsing.text import (
    Question,
    about_example,
    by_observer,
    clause_before,
    last,
    sentence_before,
    sentences,
)
from iqa_checks.protocols import Judgement, Preference, Ranking, Unparsed

LETTERS = "ABCDEFGHIJ"
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth"]
_INCOMPLETE = Unparsed("incomplete ranking")

_NOUN = r"(?:test\s+)?(?:image|pair|photo(?:graph)?|picture|option|bild|图像|图片|图|画像)"
# "A", "image A", "image 3", "first image"
_ITEM = (
    rf"(?:(?:{_NOUN}\s*:?\s*\#?\s*)(?P<named>[A-Za-z](?![A-Za-z])|\d{{1,2}}(?!\d))"
    rf"|(?P<ordinal>first|second|third|fourth|fifth|sixth)\s+{_NOUN}"
    r"|(?<![A-Za-z0-9_-])(?P<letter>[A-Z])(?![A-Za-z0-9_]))"
)
_ITEM_ONLY = re.compile(_ITEM, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Reading:
    start: int
    end: int
    judgement: Judgement
    labelled: bool = False


def read_ranking(text: str, question: Question) -> Judgement:
    text = _rank_words(text)
    readings = [
        r for reader in (_assignments, _bare_list, _chains, _by_rank, _ordered)
        for r in reader(text, question)
    ]  # fmt: skip
    if question.cut:
        readings = [r for r in readings if r.labelled or r.start == 0]
    judgement = _settled(text, readings)
    if judgement == Unparsed("no answer") and not question.cut:
        return _in_words(text, question)
    return judgement


def _settled(text: str, readings: list[_Reading]) -> Judgement:
    """The last labelled reading, else the one that all others agree with or that concludes."""
    readings = sorted(readings, key=lambda r: r.end)
    complete = [r for r in readings if r.judgement != _INCOMPLETE]
    firm = [r for r in complete if r.labelled] or complete
    if not firm:
        return readings[-1].judgement if readings else Unparsed("no answer")
    final = firm[-1]
    rivals = {r.judgement for r in firm if _overlaps_not(r, final)} - {final.judgement}
    if rivals and not final.labelled and not _REVISED.search(_lead(text, firm, final)):
        return Unparsed("ambiguous")
    if isinstance(final.judgement, Ranking) and _contradicted(text, final.judgement):
        return Unparsed("ambiguous")
    return final.judgement


_REVISED = re.compile(
    r"\b(?:final(?:ly)?|correct(?:ed|ion)?|on reflection|no|actually|overall|so|therefore|hence"
    r"|revised|instead|wait)\b",
    re.IGNORECASE,
)


def _overlaps_not(one: _Reading, other: _Reading) -> bool:
    return one.end <= other.start or one.start >= other.end


def _lead(text: str, firm: list[_Reading], final: _Reading) -> str:
    return text[max((r.end for r in firm if r.end <= final.start), default=0) : final.start]


def _contradicted(text: str, ranking: Ranking) -> bool:
    """Whether the text calls "the best" what the ranking puts last, or the reverse."""
    ranks = ranking.ranks
    if min(ranks) == max(ranks):
        return False
    for match in re.finditer(
        r"(?<![\w])([A-J])(?: (?:is|looks|has))(?: clearly| by far| visibly)? (?:the )?(best"
        r"|worst)\b",
        text,
    ):
        k = LETTERS.index(match[1])
        opposite = min(ranks) if match[2] == "best" else max(ranks)
        if k < len(ranks) and ranks[k] == opposite:
            return True
    return False


# --- assignments: "A=2, B=0, C=3, D=1" -----------------------------------------------------------

_WORDS = dict(zip(["zero", "one", "two", "three", "four", "five", "six"], range(7), strict=True))
_RANK_WORD = re.compile(rf"((?:=|:|rank)\s*)({'|'.join(_WORDS)})\b", re.IGNORECASE)
_LABEL = re.compile(
    r"(?<![A-Za-z])(?P<word>(?:final |overall |corrected |revised )?(?:ranks?|rnaks?|rankings?"
    r"|answer|order|scores?)"
    r"|排名|排序|等级|順位|ränge|rangfolge|rangos|rangs?|classement|ранги|순위)\s*"
    r"(?P<note>\([^()\n]{0,80}\)\s*)?(?:is|are|[:=]|\s-\s)+\s*",
    re.IGNORECASE,
)
# item, perhaps a note in brackets, a sign or a verb, the rank
_ASSIGNED = re.compile(
    rf"{_ITEM}\s*(?:\([^()\n]{{0,80}}\)\s*)?"
    r"(?:[,;]?\s*(?:(?:gets|has|is|receives|deserves)\s+)?(?:the\s+"
    r"|a\s+)?ranks?(?:ed)?\s*(?:of\b)?\s*[:=]?"
    r"|=+|:|→|->|-|–|\||\(|\bis\b|\bgets\b)\s*(?:ranks?\s*)?\[?"
    r"(?P<rank>-?\d+(?:[.,]\d+)?%?)(?![\w/%+*×]|[.,]\d)"
    r"(?P<rival>\s*(?:\bor\b|-|–|\bto\b|~)\s*\d+(?!\d*\s*(?:px|pixels?|dB|%)))?"
    r"(?=\s*(?:$|[,;:.)|\[\]\}(\n、，；]|/\s+[A-Za-z]|[-–]\s|\band\b|und\b|(?:(?:test\s+)?(?:image"
    r"|pair)\s+)?[A-Za-z1-9]\s*[=:]))",
    re.IGNORECASE,
)


def _rank_words(text: str) -> str:
    return _RANK_WORD.sub(lambda m: f"{m[1]}{_WORDS[m[2].lower()]}", text)


def _key(match: re.Match[str]) -> str:
    if match["ordinal"]:
        return str(_ORDINALS.index(match["ordinal"].lower()) + 1)
    return str(match["named"] or match["letter"]).upper()


def _assignments(text: str, question: Question) -> Iterator[_Reading]:
    labels = [m.start() for m in _LABEL.finditer(text)]
    given: dict[str, str] = {}
    for run in _runs(list(_ASSIGNED.finditer(text)), labels, question.n_stimuli):
        start, end = run[0].start(), run[-1].end()
        k = bisect(labels, start)
        label = labels[k - 1] if k else -1
        head = _LABEL.match(text, label) if k else None
        labelled = head is not None and head.end() + 40 > start
        if _foreign(text, label if labelled else start, labelled):
            continue
        if len(run) > 1 or labelled:
            yield _Reading(start, end, _assigned(text, run, question), labelled)
            given |= {_key(m): m["rank"] for m in run}
        elif given.get(_key(run[0]), run[0]["rank"]) != run[0]["rank"]:
            yield _Reading(start, end, Unparsed("ambiguous"))  # takes back one of the ranks given


def _foreign(text: str, position: int, labelled: bool) -> bool:
    """Whether the statement at ``position`` is the example's or another observer's."""
    context = (clause_before if labelled else sentence_before)(text, position)
    label = _LABEL.match(text, position)
    if by_observer(text, position) or about_example(context):
        return True
    return bool(label and about_example(label[0]))


def _runs(matches: list[re.Match[str]], labels: list[int], n: int) -> Iterator[list[re.Match[str]]]:
    """Assignments that belong together: until a label, or until a complete set starts again."""
    run: list[re.Match[str]] = []
    keys: set[str] = set()
    for match in matches:
        parted = run and bisect(labels, run[-1].end() - 1) < bisect(labels, match.start())
        if parted or (len(keys) >= n and _key(match) in keys):
            yield run
            run, keys = [], set()
        run.append(match)
        keys.add(_key(match))
    if run:
        yield run


def _assigned(text: str, run: list[re.Match[str]], question: Question) -> Judgement:
    positions = _positions([_key(m) for m in run], question)
    if positions is None:
        return _INCOMPLETE
    if any(m["rival"] for m in run):
        return Unparsed("ambiguous")
    if any("%" in m["rank"] for m in run):
        return Unparsed("out of range")
    values = [0.0] * len(positions)
    for position, match in zip(positions, run, strict=True):
        values[position] = float(match["rank"].replace(",", "."))
    return _ranked(values, reverse=_reversed(text, values))


_BEST_IS = re.compile(
    r"(?<![\d.])(\d)\s*(?:=|is|for|means|being|:|\(|as)*\s*(?:the\s+)?(?:best|highest quality"
    r"|most similar|top)\b"
    r"|\b(?:best|most similar)\s*(?:=|is|gets|:)\s*(?:rank )?(\d)\b",
    re.IGNORECASE,
)
_WORST_IS = re.compile(
    r"(?<![\d.])(\d)\s*(?:=|is|for|means|being|:|\(|as)*\s*(?:the\s+)?(?:worst|lowest quality"
    r"|least similar)\b"
    r"|\b(?:worst|least similar)\s*(?:=|is|gets|:)\s*(?:rank )?(\d)\b",
    re.IGNORECASE,
)


def _reversed(text: str, values: Sequence[float]) -> bool:
    """Whether the reply says that its smallest number is the best."""
    best, worst = last(_BEST_IS, text), last(_WORST_IS, text)
    b = float(best[1] or best[2]) if best else None
    w = float(worst[1] or worst[2]) if worst else None
    if re.search(r"\blower (?:is|=|means) better\b", text, re.IGNORECASE):
        return True
    if b is not None and w is not None:
        return b < w
    low, high = min(values), max(values)
    if b is not None:
        return b <= low and b < high
    return w is not None and w >= high and w > low


def _ranked(values: Sequence[float], *, reverse: bool = False) -> Judgement:
    n, low, high = len(values), min(values), max(values)
    whole = all(value == int(value) for value in values)
    if not whole or low < 0 or high > n or (low == 0 and high == n):
        return Unparsed("out of range")
    return Ranking(tuple(int(n - v if reverse else v) for v in values))


def _positions(items: Sequence[str], question: Question) -> list[int] | None:
    """Presentation positions of names; None unless each stimulus is named exactly once."""
    n = question.n_stimuli
    if len(items) != n or len(set(items)) != n:
        return None
    if all(item in LETTERS[:n] for item in items):
        return [LETTERS.index(item) for item in items]
    if not all(item.isdigit() for item in items):
        return None
    numbers = [int(item) for item in items]
    for first in (1, question.n_before + 1):
        if sorted(numbers) == list(range(first, first + n)):
            return [number - first for number in numbers]
    return None


def _levels(levels: Sequence[Sequence[str]], question: Question) -> Judgement:
    """A ranking from groups of equal items, worst group first."""
    positions = _positions([item.upper() for level in levels for item in level], question)
    if positions is None:
        return _INCOMPLETE
    ranks = [0] * question.n_stimuli
    rank_of = [k for k, level in enumerate(levels) for _ in level]
    for position, rank in zip(positions, rank_of, strict=True):
        ranks[position] = rank
    return Ranking(tuple(ranks))


# --- bare lists: "Ranks: 2, 0, 3, 1" -------------------------------------------------------------

_NUMBERS = re.compile(
    r"[\[({]?\s*(-?\d+(?:\.\d+)?(?:\s*[,;\s、]\s*-?\d+(?:\.\d+)?)+)\s*[\])}]?(?=\s*(?:[.!\n}]|$))"
)


def _bare_list(text: str, question: Question) -> Iterator[_Reading]:
    for label in _LABEL.finditer(text):
        found = _NUMBERS.match(text, label.end())
        if _direction(label["note"] or "")[0]:
            continue  # the images in that order
        if found and not _foreign(text, label.start(), True):
            sure = label["word"].lower().split()[-1] not in {
                "ranking",
                "rankings",
                "order",
                "answer",
            }
            yield _Reading(
                label.start(), found.end(), _listed(text, found[1], question, sure), True
            )
    whole = _NUMBERS.fullmatch(text.strip(" .\n"))
    if whole:
        yield _Reading(0, len(text), _listed(text, whole[1], question, False))
    elif "\n" in text:
        lines = text.strip().split("\n")
        ends = [_NUMBERS.fullmatch(line.strip(" .")) for line in (lines[0], lines[-1])]
        alone = [match for match in ends if match]
        if len(alone) == 1:
            yield _Reading(0, 0, _listed(text, alone[0][1], question, False))


def _listed(text: str, numbers: str, question: Question, sure: bool) -> Judgement:
    """Ranks in presentation order; "3, 1, 4, 2" might also be the images in order of quality."""
    values = [float(k) for k in re.findall(r"-?\d+(?:\.\d+)?", numbers)]
    if len(values) != question.n_stimuli:
        return _INCOMPLETE
    judgement = _ranked(values, reverse=_reversed(text, values))
    if not sure and isinstance(judgement, Ranking) and sorted(values)[0] > 0:
        return Unparsed("ambiguous")
    return judgement


# --- chains: "B > D = A > C" ---------------------------------------------------------------------

_ATTRIBUTE = (
    r"(?:nois[ey]\w*|blur\w*|distort\w+|sharpness|contrast|exposure|brightness|saturation|artifacts?"
    r"|compression|details?|textures?|colou?rs?|clarity|blocking|banding|dark\w*|structures?)\b"
)


def _one_attribute(lead: str) -> bool:
    """Whether ``lead`` announces an order by one attribute ("Noise: A > B > C") and not quality."""
    if re.search(r"\b(?:quality|overall|rank\w*|alike|similar\w*|final)\b", lead, re.IGNORECASE):
        return False
    return re.search(rf"\b{_ATTRIBUTE}", lead, re.IGNORECASE) is not None


_LINK = rf"(?:{_NOUN}\s*\#?)?(?<![A-Za-z0-9])(?:[A-Z]|\d{{1,2}})(?![A-Za-z0-9])"
_CHAIN = re.compile(rf"{_LINK}(?:\s*[<>=≈~]+\s*{_LINK})+", re.IGNORECASE)
_NAME = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]|\d{1,2})(?![A-Za-z0-9])", re.IGNORECASE)


def _chains(text: str, question: Question) -> Iterator[_Reading]:
    labels = list(_LABEL.finditer(text))
    ends = [m.end() for m in labels]
    for match in _CHAIN.finditer(text):
        chain, rest = match[0], text[match.end() :]
        assignment = not re.search(r"[<>]", chain) and re.search(r"\d", chain)
        if assignment or re.match(r"\s*\?", rest):
            continue
        if re.match(r"\s*[<>]", rest):
            yield _Reading(match.start(), match.end(), _INCOMPLETE)
            continue
        k = bisect(ends, match.start())
        label = labels[k - 1] if k else None
        labelled = label is not None and match.start() - label.end() < 4
        if _foreign(text, label.start() if labelled and label else match.start(), labelled):
            continue
        if not labelled and _one_attribute(sentence_before(text, match.start())):
            continue
        yield _Reading(match.start(), match.end(), _chained(chain, question), labelled)


def _chained(chain: str, question: Question) -> Judgement:
    if ">" in chain and "<" in chain:
        return Unparsed("ambiguous")
    levels = [_NAME.findall(part) for part in re.split(r"[<>]+", chain)]
    return _levels(levels[::-1] if ">" in chain else levels, question)


# --- rank first: "Rank 3: B" ---------------------------------------------------------------------

_BY_RANK = re.compile(
    r"(?m)^\s*[-•]?\s*(?P<word>ranks?\s*)?(?P<rank>\d)\s*"
    r"(?P<note>\((?:the )?\w+(?: quality)?\)\s*)?[:=→–-]\s*"
    rf"(?P<items>{_LINK}(?:\s*(?:,|and|&|=)\s*{_LINK})*)\s*(?:$|[,;.(–-])",
    re.IGNORECASE,
)


def _by_rank(text: str, question: Question) -> Iterator[_Reading]:
    matches = list(_BY_RANK.finditer(text))
    matches = [m for m in matches if not _NAME.findall(m["items"])[0].isdigit() or m["word"]]
    if len(matches) < 2:
        return
    ranks = [int(m["rank"]) for m in matches]
    levels = {int(m["rank"]): _NAME.findall(m["items"]) for m in matches}
    judgement = _levels([levels[k] for k in sorted(levels)], question)
    if isinstance(judgement, Ranking):
        declared = _BEST_IS.search(text) or _WORST_IS.search(text)
        if (
            min(ranks) > 0 and not declared
        ):  # "Rank 1: B" is the best for most, the worst by the form
            judgement = Unparsed("ambiguous")
        elif _reversed(text, ranks):
            judgement = _levels([levels[k] for k in sorted(levels, reverse=True)], question)
    yield _Reading(matches[0].start(), matches[-1].end(), judgement)


# --- ordered lists: "From best to worst: D, B, A, C" ------------------------------------------

_GAP = r"(?:\s*(?:quality|one|image)?\s*(?:,|→|->|-|–|to|first|down to)?\s*(?:the\s*)?)"
_BEST_FIRST = re.compile(
    rf"\bbest{_GAP}worst\b|\bbest first\b"
    rf"|\b(?:from )?high(?:est)?(?: quality)?{_GAP}low(?:est)?\b|\b(?:descending|decreasing)\b"
    rf"|\bmost similar{_GAP}least similar\b|\bbest quality{_GAP}worst\b|从最?[好高优]到最?[差低]"
    r"|良い順|高い順"
    r"|\bbesten? zum? schlechteste?n?\b|\bmejor a peor\b|\bmelhor (?:para|ao?) (?:o )?pior\b"
    r"|\bmeilleure? (?:au|à la) pire\b"
    r"|\bdal migliore al peggiore\b|от лучшего к худшему|1st place",
    re.IGNORECASE,
)
_WORST_FIRST = re.compile(
    rf"\bworst{_GAP}best\b|\bworst first\b"
    rf"|\b(?:from )?low(?:est)?(?: quality)?{_GAP}high(?:est)?\b|\b(?:ascending|increasing)\b"
    rf"|\bleast similar{_GAP}most similar\b|从最?[差低]到最?[好高优]|悪い順|低い順"
    r"|\bschlechtesten? zum? besten?\b|\bpeor a mejor\b|\bpire (?:au|à la) meilleure?\b"
    r"|от худшего к лучшему",
    re.IGNORECASE,
)
_LINE_ITEM = re.compile(
    rf"\s*(?:\d{{1,2}}\s*[.)]|\d(?:st|nd|rd|th)(?: place)?\s*:"
    rf"|[-•])?\s*(?:{_NOUN}\s*)?(?<![A-Za-z0-9])(?P<item>[A-Z]|\d{{1,2}})"
    r"(?![A-Za-z0-9.])\s*(?P<rest>$|[:,(–-].*|\s.*)",
    re.IGNORECASE,
)


def _ordered(text: str, question: Question) -> Iterator[_Reading]:
    direction, match = _direction(text)
    if match is None:
        yield from _marked_lines(text, question)
        yield from _marked_inline(text, question)
        return
    line_end = text.find("\n", match.end())
    line_end = len(text) if line_end < 0 else line_end
    line_start = text.rfind("\n", 0, match.start()) + 1
    if _one_attribute(text[line_start : match.end()]):
        return
    lines = _item_lines(text[line_end + 1 :], question.n_stimuli)
    if direction is not None and "place" in match[0]:
        lines = _item_lines(text[line_start:], question.n_stimuli)
    for items in (
        _inline(text[match.end() : line_end]), lines, _inline(text[line_start : match.start()])
    ):  # fmt: skip
        if len(items) > 1:
            levels = [[item] for item in items]
            judgement = _levels(levels[::-1] if direction == "best" else levels, question)
            yield _Reading(match.start(), line_end, judgement)
            return


def _direction(text: str) -> tuple[str | None, re.Match[str] | None]:
    best, worst = last(_BEST_FIRST, text), last(_WORST_FIRST, text)
    if best and (worst is None or best.start() > worst.start()):
        return "best", best
    return ("worst", worst) if worst else (None, None)


def _inline(part: str) -> list[str]:
    """ "D, B, A, C", "D B A C" or "DBCA"."""
    fused = re.fullmatch(r"[\s:(]*([A-J]{2,10})[\s.)]*", part)
    if fused:
        return list(fused[1])
    if re.search(r"[<>=]", part):
        return []
    return [
        m[0]
        for m in re.finditer(
            r"(?<![A-Za-z0-9])(?:[A-J]"
            r"|\d{1,2}(?!\s*[.)]\s))(?![A-Za-z0-9])",
            part,
        )
    ]


def _item_lines(part: str, n: int) -> list[str]:
    items = []
    for line in part.split("\n"):
        if not line.strip():
            continue
        match = _LINE_ITEM.fullmatch(line)
        if match is None:
            break
        items.append(match["item"])
        if len(items) > n:
            break
    return items


def _marked_lines(text: str, question: Question) -> Iterator[_Reading]:
    """A numbered list without a heading whose first or last line says "(best)" or "(worst)"."""
    lines = [line for line in text.split("\n") if line.strip()]
    found = [m for line in lines if (m := _LINE_ITEM.fullmatch(line)) and re.match(r"\s*\d", line)]
    if len(found) < 2:
        return
    first, final = found[0]["rest"].lower(), found[-1]["rest"].lower()
    best_first = re.match(r"\W*(?:the )?best\b", first) or re.match(r"\W*(?:the )?worst\b", final)
    worst_first = re.match(r"\W*(?:the )?worst\b", first) or re.match(r"\W*(?:the )?best\b", final)
    if bool(best_first) == bool(worst_first):
        return
    levels = [[m["item"]] for m in found]
    yield _Reading(0, len(text), _levels(levels[::-1] if best_first else levels, question))


_MARKED_INLINE = re.compile(
    rf"{_LINK}\s*\((?:the )?(?P<first>best|worst)\)(?:\s*,\s*{_LINK})*\s*,\s*"
    rf"{_LINK}\s*\((?:the )?(?P<final>best|worst)\)"
)


def _marked_inline(text: str, question: Question) -> Iterator[_Reading]:
    """ "A (best), B, C, D (worst)"."""
    for match in _MARKED_INLINE.finditer(text):
        if match["first"] != match["final"]:
            levels = [[name] for name in _NAME.findall(match[0])]
            ordered = levels[::-1] if match["first"] == "best" else levels
            yield _Reading(match.start(), match.end(), _levels(ordered, question))


# --- sentences -----------------------------------------------------------------------------------

_ALL_EQUAL = re.compile(
    r"\b(?:all|every|each)\b[^.!?\n]{0,60}?\b(?:equal(?:ly good| quality)?$|equal\b"
    r"|same (?:overall |visual )?(?:quality(?! (?:setting|factor|level))|rank)"
    r"|comparable\b|indistinguishable|identical(?: in)? quality|tied?)"
    r"|\bno (?:visible |noticeable )?difference in quality\b",
    re.IGNORECASE,
)
_BEST = re.compile(r"\b(?:best|highest|most similar|most alike)\b|最好|最佳|最高", re.IGNORECASE)
_WORST = re.compile(
    r"\b(?:worst|poorest|lowest|least similar|least alike)\b|最差|最低", re.IGNORECASE
)
_BEST_ATTRIBUTE = re.compile(rf"\b(?:best|worst|highest|lowest) {_ATTRIBUTE}", re.IGNORECASE)
_THEN = re.compile(
    r"\b(?:then|followed by|next|finally|second best|third|middle|2nd|3rd)\b|其次"
    r"|然后|次に",
    re.I,
)
_REST_EQUAL = re.compile(
    r"\b(?:the )?(?:other|remaining|rest)\b[^.!?\n]{0,40}\b(?:same|equal\w*|comparable"
    r"|tied?)\b",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:example|if|whether|either|cannot|can't|might|could)\b|\?|无法"
    r"|不能",
    re.IGNORECASE,
)


def _in_words(text: str, question: Question) -> Judgement:
    n = question.n_stimuli
    if n == 2:
        pair = read_prose(text, question)
        if isinstance(pair, Preference):
            return Ranking({"first": (1, 0), "second": (0, 1), "comparable": (0, 0)}[pair.choice])
    readings = [r for part in _statements(text) if (r := _narrated(part, question)) is not None]
    if readings:
        return readings[-1] if len(set(readings)) == 1 else Unparsed("ambiguous")
    return Unparsed("no answer")


def _statements(text: str) -> Iterator[str]:
    yield from sentences(text)
    if len(text) < 400 and all(len(line) < 40 for line in text.split("\n")[1:]):
        yield text.replace("\n", "; ")  # "Best: B. Second best: D. Third: A. Worst: C."


def _narrated(sentence: str, question: Question) -> Judgement | None:
    """ "A is the best, followed by C, then D, and B is the worst" and the like."""
    if _SUPPOSED.search(sentence) or _BEST_ATTRIBUTE.search(sentence):
        return None
    if _ALL_EQUAL.search(sentence) and not re.search(r"\bnot\b", sentence):
        return Ranking((0,) * question.n_stimuli)
    items = _items(sentence)
    keys = [key for _, key in items]
    best = re.sub(r"second best", "           ", sentence, flags=re.IGNORECASE)
    if len(_BEST.findall(best)) > 1 or len(_WORST.findall(sentence)) > 1 or not items:
        return None
    if len(items) == 1 and _REST_EQUAL.search(sentence):
        return _one_and_the_rest(keys[0], sentence, question)
    first_word = _end_named(sentence, best)
    if first_word is None or _positions(keys, question) is None:
        return None
    levels = [[key] for key in keys]
    return _levels(levels[::-1] if first_word is _BEST else levels, question)


def _items(sentence: str) -> list[tuple[int, str]]:
    pattern = rf"(?:{_NOUN}\s*)?(?<![A-Za-z0-9])([A-J])(?![A-Za-z0-9])"
    return [(m.start(), m[1].upper()) for m in re.finditer(pattern, sentence)]


def _end_named(sentence: str, best: str) -> re.Pattern[str] | None:
    """Which end of the scale the sequence starts from, if it is told as a sequence."""
    b, w = _BEST.search(best), _WORST.search(sentence)
    told = _THEN.search(sentence) is not None
    if b and (w is None or b.start() < w.start()) and told:
        return _BEST
    if w and (b is None or w.start() < b.start()) and told:
        return _WORST
    return None


def _one_and_the_rest(key: str, sentence: str, question: Question) -> Judgement | None:
    if key not in LETTERS[: question.n_stimuli]:
        return None
    best, worst = bool(_BEST.search(sentence)), bool(_WORST.search(sentence))
    if best == worst:
        return None
    k = LETTERS.index(key)
    return Ranking(tuple(int((i == k) == best) for i in range(question.n_stimuli)))
