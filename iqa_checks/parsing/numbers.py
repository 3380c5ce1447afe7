"""Numbers written as words, in English, German and Chinese, as digits."""

from __future__ import annotations

import re

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_GERMAN_UNITS = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_GERMAN_TENS = [
    "zwanzig",
    "dreißig",
    "vierzig",
    "fünfzig",
    "sechzig",
    "siebzig",
    "achtzig",
    "neunzig",
]
_CHINESE = "零一二三四五六七八九"


def _english() -> dict[str, int]:
    words = {word: k for k, word in enumerate(_UNITS)}
    for k, tens in enumerate(_TENS, start=2):
        words[tens] = 10 * k
        for unit in range(1, 10):
            words[f"{tens}-{_UNITS[unit]}"] = 10 * k + unit
    return words | {"one hundred": 100, "a hundred": 100, "hundred": 100}


def _german() -> dict[str, int]:
    words = {word: k for k, word in enumerate(_GERMAN_UNITS) if k > 1}
    for k, tens in enumerate(_GERMAN_TENS, start=2):
        words[tens] = 10 * k
        for unit in range(1, 10):
            words[f"{_GERMAN_UNITS[unit]}und{tens}"] = 10 * k + unit
    return words | {"hundert": 100, "einhundert": 100}


_WORDS = _german() | _english()
_WORD = re.compile(
    r"\b(?:(?P<minus>minus|negative)\s)?(?P<word>"
    + "|".join(sorted(_WORDS, key=len, reverse=True)).replace("-", r"[\s-]")
    + r")(?P<half> and a half| point five)?\b",
    re.IGNORECASE,
)
# 八十五分, 85分: only before 分 ("points"), for the characters also count ("一张图", one picture)
_CHINESE_POINTS = re.compile(
    r"([一二三四五六七八九]?)(十?|百)([一二三四五六七八九零]?)(?=分(?!之))"
)


def as_digits(text: str) -> str:
    """``text`` with "eighty-five", "fünfundachtzig" and "八十五分" as "85"."""
    return _CHINESE_POINTS.sub(_chinese, _WORD.sub(_digits, text))


def _digits(match: re.Match[str]) -> str:
    value = _WORDS[re.sub(r"\s", "-" if "hundred" not in match["word"].lower() else " ",
                          match["word"].lower())]  # fmt: skip
    return f"{'-' if match['minus'] else ''}{value}{'.5' if match['half'] else ''}"


def _chinese(match: re.Match[str]) -> str:
    tens, ten, unit = match.groups()
    if not (tens or ten or unit):
        return ""
    if ten == "百":
        return "100" if tens in {"", "一"} and not unit else match[0]
    if not ten:
        return str(_CHINESE.index(tens or unit)) if not (tens and unit) else match[0]
    return str(10 * (_CHINESE.index(tens) if tens else 1) + (_CHINESE.index(unit) if unit else 0))
