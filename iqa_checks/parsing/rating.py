"""Ratings: a number on 0..100."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from iqa_checks.parsing.numbers import as_digits
from iqa_checks.parsing.text import (
    Question,
    about_others,
    by_observer,
    clause_before,
    last,
    sentence_before,
)
from iqa_checks.protocols import Judgement, Rating, Unparsed

# --- values ------------------------------------------------------------------------------------

_NUMBER = r"[-+]?\d+(?:[.,]\d+)?(?![0-9])"
# a number, perhaps a second one that makes it a range, perhaps what it is out of
_VALUE = re.compile(
    rf"(?P<low>{_NUMBER})(?![A-Za-z]{{0,2}}\d|(?:st|nd|rd|th|x|px|k|d|db)\b)"
    rf"(?:\s*(?:-|–|~|\bto\b|\band\b|到|至|\bbis\b"
    rf"|\bà\b)\s*(?P<high>\d+(?:[.,]\d+)?)(?![0-9A-Za-z]))?"
    r"(?:\s*(?P<percent>%|percent\b|per cent\b|Prozent\b)"
    r"|\s*(?:points?|pts|分|点|점|Punkten?|puntos|баллов|балла)?\s*\(?\s*"
    r"(?:/|\bout of\b|\bof\b|\bvon\b|\bsur\b|\bsobre\b|\bsu\b|\bde\b|\bem\b|из)\s*"
    r"(?:a (?:possible|maximum(?: of)?) |max\.? )?(?P<scale>\d+(?:[.,]\d+)?)(?![\w/]))?",
    re.IGNORECASE,
)
# "40 or 80", "70+5": a second value in competition with the first
_RIVAL = re.compile(
    rf"\s*(?:(?:points?|%)\s*)?(?:\bor\b|\boder\b|\bou\b|或|/|,(?=\s*\d+\b\s*(?:$|\n|[,.]))"
    rf"|[+*×^])\s*"
    rf"(?:maybe |perhaps |even )?{_NUMBER}"
)
_CONDITION = re.compile(r"\b(?:if|when|depending|whether|unless)\b(?! i (?:had|have|must))", re.I)
_SCALE_STATED = re.compile(
    r"\bscale\s*(?:of|from|is)?\s*:?\s*\(?[01]\s*(?:\([^()]{0,30}\)\s*)?(?:-|–|to)\s*(\d+)"
    r"|\bmax(?:imum)?(?: possible)?(?: (?:score|rating|points))?\s*(?:is|of|[:=])?\s*(\d+)",
    re.IGNORECASE,
)


def _value(tail: str, scale: float) -> Judgement | None:
    """The value that ``tail`` begins with, on ``scale`` unless it says what it is out of."""
    found = _VALUE.match(tail)
    if found is None:
        return None
    rest = tail[found.end() :]
    sentence = re.split(r"[.!?](?:\s|$)|\n", rest, maxsplit=1)[0]
    if _RIVAL.match(rest) or (_CONDITION.search(sentence) and re.search(r"\d", sentence)):
        return Unparsed("ambiguous")
    low = _float(found["low"])
    if found["high"] and low <= 1 and _float(found["high"]) in {10, 100}:
        return None  # "from 0 to 100" is the scale
    high = _float(found["high"]) if found["high"] else low
    if found["scale"]:
        scale = _float(found["scale"])
    elif found["percent"]:
        scale = 100.0
    if scale <= 0 or high < low:
        return Unparsed("ambiguous")
    score = 100.0 * ((low + high) / 2) / scale if scale != 100.0 else (low + high) / 2
    return Rating(score) if 0 <= score <= 100 else Unparsed("out of range")


def _float(text: str) -> float:
    if re.fullmatch(r"[-+]?\d+,\d{3}", text):  # "1,000": a thousand, not one
        return float(text.replace(",", ""))
    return float(text.replace(",", "."))


# --- statements --------------------------------------------------------------------------------

_LABEL = (
    r"scores?|ratings?|answers?|results?|grade|mos|overall|verdict|(?:overall|image|test"
    r"|final) quality"
    r"|quality|estimate|rate"
)
# in these languages a label counts only before a colon; "Note: 100 would be" is English
_FOREIGN = (
    r"評分|评分|分数|得分|打分|总分|スコア|点数|評価|採点|점수|평점|punteggio|puntuaci[oó]n|puntaje"
    r"|calificaci[oó]n|valoraci[oó]n|pontua[cç][aã]o|bewertung|punktzahl|wertung"
    r"|not[ae](?=\s*:\s*[\d.,]+(?:\s*(?:/|sur|su|de|sobre)\s*\d+)?\s*\.?\s*(?:\n|$))"
    r"|оценка|балл"
)
_SCALE_NOTE = r"(?:\s*\((?P<note>[^()\n]{0,40})\))?"
_STATED = re.compile(
    rf"(?:(?<![A-Za-z])(?P<label>{_LABEL})(?:\s+value)?{_SCALE_NOTE}"
    r"(?P<of>\s+(?:of|for)\s+(?:the\s+|this\s+)?(?:test\s+)?(?:image|photo(?:graph)?|picture"
    r"|pair)(?:\s*#?\d(?!\d))?)?"
    rf"|(?P<foreign>{_FOREIGN}))\s*(?P<sep>[:=|→]|\s[-–](?=\s)|\n)?",
    re.IGNORECASE,
)
# verbs of judging: "I would rate the quality of this image as 72", "I settle on 65"
_VERB = re.compile(
    r"\b(?:rates?|rated|give|assign|settle (?:on|for|at)|go with|put|estimate|judge|say|guess"
    r"|deserves?|merits?|opt for|choose|score|scores|is worth|change it to|revise it to|land on)\b"
)
# words that may stand between the marker and the number; anything else breaks the statement
_FILLER = re.compile(
    r"(?:\s*(?:\b(?:is|was|would|should|be|of|at|as|a|an|the|it|its|this|that|it's|to|about"
    r"|around|for"
    r"|something|like|roughly|approximately|approx|circa|ca|between|probably|likely|image|images|test|photo"
    r"|photograph"
    r"|picture|pair|overall|quality|score|rating|final|out|my|best|estimate|value|perceived"
    r"|visual|near"
    r"|be|seems|comes|just|only|es|ist|est|etwa|circa|environ)\b\.?"
    r"|为|是|は|約|[:=|→~≈(\[{;,;*]|[-–](?=\s)))",
    re.IGNORECASE,
)
# "image 17", "A=2": the number is a name's or a rank's
_NAMES_AN_IMAGE = re.compile(
    r"\s*(?:(?:images?|photo(?:graph)?|picture|pair)\s*#?\d|[A-J]\s*[=:>]|\d\)\s)", re.IGNORECASE
)
_ARITHMETIC = re.compile(r"\s*(?=[(\d])[\d\s()+*/×x.,-]{2,80}[=≈]\s*")
_ATTRIBUTE = re.compile(
    r"\b(?:sharpness|noise|colou?rs?|contrast|structures?|textures?|luminance|brightness|blur"
    r"|details?"
    r"|exposure|artifacts?|saturation|composition|compression|aesthetics?|confidence|certainty|jpeg"
    r"|psnr|ssim|lpips|lighting|clarity|focus|distortions?|blocking|banding|fidelity|mean|max"
    r"|maximum"
    r"|minimum|resolution|dynamic range|white balance|edges?|hue|structural similarity|example)\s*"
    r"(?:reproduction|preservation|level|quality)?\s*$",
    re.IGNORECASE,
)
# what the colour-difference task asks for is no single attribute
_LIKENESS = re.compile(
    r"\b(?:similarity|likeness|match|agreement) (?:of|between|in) (?:the |their )?(?:two )?"
    r"colou?rs",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:would have|was going to|were going to|had considered|could have|might|could|can(?:no|')t"
    r"|cannot|people|they|unable|not able|initially|at first|do not|don't|not)\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:settle|revise|change|correct(?:ed|ion)?|final(?:ly)?|instead|actually|therefore"
    r"|overall)\b",
    re.IGNORECASE,
)
# a number and then a word that is none of these counts something: "2 lamps"
_COUNTS = re.compile(
    r"[\d.,]*\d\s+(?!(?:out|on|for|because|due|since|as|and|but|given|points?|overall|in|which|based"
    r"|at|of|or|to|if|percent|per|with|von|sur|sobre|su|de|because|considering|here)\b)[A-Za-z]{2}",
    re.IGNORECASE,
)
# "a score of 20 is visible": on a scoreboard in the picture
_DEPICTED = re.compile(
    r"[^\d\n]{0,40}\d[\d.,]*\s+(?:(?:is |are |can be )?(?:visible|shown|displayed|seen|written)"
    r"|on (?:the|a) (?:screen|board|sign))\b"
)
# "not 80", "rather than 80"
_DENIED = re.compile(rf"\b(?:not|rather than|instead of|isn't)\s+(?:be\s+|at\s+)?{_NUMBER}[;,]?")


@dataclass(frozen=True, slots=True)
class _Statement:
    judgement: Judgement
    firm: bool  # labelled, or marked as the final word; others count only where there is none


def read_rating(text: str, question: Question) -> Judgement:
    text = _DENIED.sub(" ", as_digits(_points_of_full_marks(text)))
    scale = _stated_scale(text)
    whole = text.strip(" \n.!…[](){}|-")
    if text.strip().startswith("-"):
        whole = text.strip(" \n.!")
    found = _VALUE.fullmatch(whole)
    if found:
        value = _value(whole, scale)
        assert value is not None
        return Unparsed("truncated") if question.cut and _cut_inside(text, value) else value
    statements = list(_labelled(text, scale))
    if not any(s.firm for s in statements):
        statements = [] if question.cut else [*statements, *_by_verb(text, scale)]
    firm = [s for s in statements if s.firm] or statements
    if firm:
        value = firm[-1].judgement
        return Unparsed("truncated") if question.cut and _cut_inside(text, value) else value
    if question.cut:
        return Unparsed("no answer")
    return _alone(text, scale) or _explicit(text)


def _points_of_full_marks(text: str) -> str:
    """ "100点満点中45点" as "45/100", "满分100分,85分" without its full marks."""
    text = re.sub(
        r"(?<!\d)(\d{1,4})\s*点満点(?:中|で)?[、,]?\s*(\d+(?:\.\d+)?)\s*点", r"\2/\1", text
    )
    return re.sub(r"[(（]?满分(?:为|是)?\s*100\s*分[)）]?|百分制", " ", text)


def _stated_scale(text: str) -> float:
    match = last(_SCALE_STATED, text)
    scale = float(match[1] or match[2]) if match else 100.0
    return scale if scale in {1, 4, 5, 7, 10, 20, 50} else 100.0


def _cut_inside(text: str, value: Judgement) -> bool:
    """Whether the reply ends inside a number that could go on ("Score: 8" of "Score: 85")."""
    open_end = text[-1:].isdigit() and not re.search(r"(?<![\d.])100$", text)
    return open_end and value != Rating(100.0)


def _labelled(text: str, scale: float) -> Iterator[_Statement]:
    for match in _STATED.finditer(text):
        if match["foreign"] and not match["sep"]:
            continue
        value = _after_filler(text, match.end(), _note_scale(match["note"]) or scale)
        if value is None:
            continue
        context = clause_before(text, match.start())
        wider = context if match["sep"] else sentence_before(text, match.start())
        if about_others(wider) or by_observer(text, match.start()) or _ATTRIBUTE.search(context):
            continue
        if match["sep"] is None and _DEPICTED.match(text, match.end()):
            continue
        strict = (match["sep"] or "").strip() != "" or _REVISED.search(wider) is not None
        if _PAST.search(wider) and not _REVISED.search(wider) and match["sep"] is None:
            continue
        if match["label"] and match["label"].lower() in {"rate", "quality"} and not strict:
            continue
        yield _Statement(value, strict)


def _by_verb(text: str, scale: float) -> Iterator[_Statement]:
    for match in _VERB.finditer(text):
        value = _after_filler(text, match.end(), scale, alone=True)
        if value is None:
            continue
        wider = sentence_before(text, match.start())
        clause = clause_before(text, match.start())
        if _ATTRIBUTE.search(_LIKENESS.sub("", clause)) or re.match(
            r"\s*[:=]", text[match.end() : match.end() + 4]
        ):
            continue  # "Sharpness score: 70" is a noun
        if _PAST.search(clause) or about_others(clause) or by_observer(text, match.start()):
            continue
        depicted = _DEPICTED.match(text, match.end())
        if depicted or _CONDITION.search(wider):
            continue
        yield _Statement(value, _REVISED.search(wider + match[0]) is not None)


def _note_scale(note: str | None) -> float | None:
    """The scale in "Score (out of 10): 7" or "Rating (0-5): 4"."""
    found = re.search(r"(?:out of|/|-|–|to|max\w*:?)\s*(\d+)\s*$", note or "", re.IGNORECASE)
    return float(found[1]) if found else None


def _after_filler(text: str, start: int, scale: float, *, alone: bool = False) -> Judgement | None:
    """The value behind ``start``; with ``alone`` none that counts something ("2 lamps")."""
    tail = text[start : start + 400]
    if re.match(r"\s*\beither\b|\s*somewhere", tail, re.IGNORECASE):
        return Unparsed("ambiguous") if re.search(r"\d", tail.split("\n")[0]) else None
    for _ in range(14):
        result = _ARITHMETIC.match(tail)
        if result:
            return _value(tail[result.end() :], scale)
        value = _value(tail.lstrip(), scale)
        if value is not None:
            return None if alone and _COUNTS.match(tail.lstrip()) else value
        filler = _FILLER.match(tail)
        if filler is None or _NAMES_AN_IMAGE.match(tail):
            return None
        tail = tail[filler.end() :]
    return None


# --- values without a statement ----------------------------------------------------------------

_UNIT = r"(?:分|点|점|points?\b|Punkten?\b|puntos\b|баллов|балла)"
_LISTED = re.compile(r"(?m)^\s*\d+[.)]\s[^\n]*\n\s*\d+[.)]\s")  # two items of a numbered list
# "3/10", "64 von 100 Punkten", "82分"
_EXPLICIT = re.compile(
    rf"(?<![\d.,/x:-])(?P<low>\d+(?:[.,]\d+)?)(?:\s*{_UNIT})?\s*"
    r"(?:/|\bout of\b|\bvon\b|\bsur\b|\bsobre\b|\bsu\b|из)\s*(?P<scale>5|10|20|50|100)(?!\d|[./]\d)"
    r"(?!\s*(?:s|sec|seconds|of|mm|m|images|pixels)\b)"
    rf"|(?<![\d.,/x:到至~-])(?P<points>\d+(?:[.,]\d+)?)\s*{_UNIT}(?!之|钟|贝)",
    re.IGNORECASE,
)


def _alone(text: str, scale: float) -> Judgement | None:
    """A number on the first or last line of its own, if no other line is one."""
    lines = [line.strip(" .!()[]|") for line in text.split("\n") if line.strip()]
    numbers = [line for line in lines if _VALUE.fullmatch(line)]
    if len(numbers) == 1 and numbers[0] in {lines[0], lines[-1]}:
        return _value(numbers[0], scale)
    first = re.match(r"(\d{1,3}(?:[.,]\d+)?%?)(?:[.:,]|\s[-–])\s+[A-Z]", text)
    return _value(first[1], scale) if first and not numbers and not _LISTED.search(text) else None


def _explicit(text: str) -> Judgement:
    readings: list[Judgement] = []
    for match in _EXPLICIT.finditer(text):
        context = re.split(r"\n", text[: match.start()][-200:])[-1]
        sentence = sentence_before(text, match.start())
        clause = re.sub(r"[\s:|=(-]+$", "", clause_before(text, match.start()) or context)
        named = re.sub(r"[\s:|=(-]+$", "", sentence)
        if about_others(sentence) or _ATTRIBUTE.search(named) or _ATTRIBUTE.search(clause):
            continue
        if match["points"] and _PAST.search(sentence):
            continue
        readings.append(_value(match[0], 100.0) or Unparsed("ambiguous"))
    if len(set(readings)) > 1:
        return Unparsed("ambiguous")
    return readings[0] if readings else Unparsed("no answer")
