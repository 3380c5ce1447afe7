"""Preferences: the first, the second, or neither."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from iqa_checks.parsing.text import Question, about_example, by_observer, clause_before, sentences
from iqa_checks.protocols import Choice, Judgement, Preference, Unparsed

# --- names of the two stimuli ------------------------------------------------------------------

_NOUN = (
    r"(?:image|photo(?:graph)?|picture|pair|option|img|version|candidate|bild|imagen"
    r"|图像|图片|图)s?"
)
_WORD_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
# uses of "first" and "second" that name no stimulus: "at first", "the second third", "second look"
_NOT_A_NAME = re.compile(
    r"\bat first\b|\bfirst of all\b|\bon second thought\b|\b(?:a|one|split) second\b"
    r"|\b(?:first|second)(?:ly)?\s+(?:glance|look|sight|impression|thoughts?|third|half|quarter"
    r"|attempt|step"
    r"|example|row|place|time|draft|choice|place|best)\b|\b(?:first|second|third)ly\b"
    r"|(?:(?<=[.!?:;\n])\s*|^\s*)(?:first|second),\s(?!second)",
    re.IGNORECASE,
)
_NAME = re.compile(
    rf"(?P<image>(?<![A-Za-z])(?P<test>test\s+)?(?P<noun>{_NOUN})\s*\#?\(?(?P<number>\d+|one|two"
    rf"|three|four)\b)"
    rf"|(?P<letter>(?<![A-Za-z])(?:test\s+)?{_NOUN}\s*\(?(?P<ab>[AB])(?![\w]))"
    r"|(?P<first>\bfirst\b|\b1st\b|\bformer\b|第一|前者|(?<!\d)1枚目|\bprimer[ao]?\b|\bprimeir[ao]\b"
    r"|\bpremi[eè]re?\b|\berste[srnm]?\b|\bersteres?\b|\bперв\w{2,3}\b|첫\s?번째)"
    r"|(?P<second>\bsecond\b|\b2nd\b|\blatter\b|第二|后者|後者|(?<!\d)2枚目|\bsegund[ao]\b|\bseconde\b"
    r"|\bdeuxi[eè]me\b|\bzweite[srnm]?\b|\bletzteres?\b|\bвтор\w{2,3}\b|두\s?번째)",
    re.IGNORECASE,
)
_BARE_NAME = re.compile(
    r"(?:\b(?:number|no\.?|option)\s*|#)?\(?\s*(?P<bare>[12A-Bab]|one|two"
    r"|\d+)\s*\)?"
)
_NEVER: set[Choice] = {"first", "second"}  # what an unresolvable number names


@dataclass(frozen=True, slots=True)
class Numbering:
    """How image numbers count; ``from_all`` when the reply shows that it counts all images."""

    n_before: int
    from_all: bool
    images_per_stimulus: int = 1

    @classmethod
    def of(cls, text: str, question: Question) -> Numbering:
        """An "image" with the number that only the second test has settles it."""
        n_before, per_stimulus = question.n_before, question.images_per_stimulus
        pattern = rf"\b(?:images?|photos?|pictures?) ?#?(?:\d+ (?:and|vs\.?|or) )?{n_before + 2}\b"
        settled = n_before > 0 and re.search(pattern, text, re.IGNORECASE) is not None
        return cls(n_before, settled, per_stimulus)


_FROM_TESTS = Numbering(0, False)


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    choices: frozenset[Choice]  # two where a number could mean either


def _mentions(text: str, numbers: Numbering) -> list[_Mention]:
    blanked = _NOT_A_NAME.sub(lambda m: " " * len(m[0]), text)
    found = []
    for match in _NAME.finditer(blanked):
        choices = _named(match, numbers)
        if choices:
            found.append(_Mention(match.start(), match.end(), frozenset(choices)))
    return found


def _named(match: re.Match[str], numbers: Numbering) -> set[Choice]:
    if match["first"]:
        return {"first"}
    if match["second"]:
        return {"second"}
    if match["ab"]:
        return {"first"} if match["ab"].upper() == "A" else {"second"}
    word = match["number"].lower()
    number = _WORD_NUMBERS.get(word) or int(word[:6])
    from_all = not re.match("option|pair|candidate|version", match["noun"], re.IGNORECASE)
    if match["test"] and number <= 2:
        from_all = False
    return _numbered(number, numbers if from_all else _FROM_TESTS, of_images=from_all)


def _numbered(number: int, numbers: Numbering, *, of_images: bool) -> set[Choice]:
    """What ``number`` names, counted from the tests or from the first image shown."""
    names: dict[int, Choice] = {1: "first", 2: "second"}
    if of_images and numbers.images_per_stimulus > 1:
        return set(_NEVER)  # an image is half of a stimulus
    from_all = number - numbers.n_before
    if of_images and numbers.from_all:
        return {names[from_all]} if from_all in names else set()
    if of_images and 0 < number <= numbers.n_before:
        return set(_NEVER)  # the prompt's name of a picture that is not judged
    return {names[k] for k in (number, from_all) if k in names}


# --- values ------------------------------------------------------------------------------------

_SAME = re.compile(
    r"\bcompar[aei]ble\b|\bthe same\b(?! quality (?:setting|factor|level))"
    r"|\bsame quality\b(?! (?:setting|factor|level))"
    r"|\bequal(?:ly)?\b|\b(?:a |dead )(?:tie|draw)\b|\btied\b|^\s*(?:tie|draw)\b"
    r"|(?<!more )(?<!most )(?<!less )\bsimilar\b|\bindistinguishable\b|\bidentical\b"
    r"|\bequivalent\b|\bon par\b"
    r"|(?<!more )\balike\b|^\s*(?:both|neither|none of them|no difference)\s*$"
    r"|\bneither\b.{0,40}\b(?:better|superior)\b|\bno (?:\w+ )?(?:difference|preference)\b"
    r"|相当|相同|一样|差不多|同等|同程度|无明显差异|没有(?:明显)?(?:差异|区别)"
    r"|\bgleich(?:wertig|gut| gut)?\b|vergleichbar"
    r"|\bsimilaires?\b|\bcomparables?\b|\biguales?\b|\bsimilares\b|\bcompar[aá]veis\b|сопоставим"
    r"|одинаков|동일|비슷",
    re.IGNORECASE,
)
_NOT_SAME = re.compile(
    r"(?:\bnot|n't)\s+(?:\w+ )?(?:comparable|the same|equal|similar|identical|indistinguishable"
    r"|alike)",
    re.IGNORECASE,
)
_CHOICE_WORD = (
    r"(?:the\s+)?(?:first|second|former|latter|[AB12]\b)(?:\s+(?:test\s+)?(?:image|one|pair))?"
)
# "not the first (image)", "rather than the first", "instead of B"
_DENIED = re.compile(
    rf"[,(]?\s*\b(?:not|rather than|instead of"
    rf"|isn't)\s+{_CHOICE_WORD}\)?(?:\s*,?\s*but\b)?",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\([^()]{2,200}\)")
_JOINED = re.compile(
    r"\s*,?\s*(?:\bor\b|/|\boder\b|\bou\b|\bo\b|或|还是|または"
    r"|или)\s*(?:\w+\s+){0,3}$",
    re.I,
)
_RELATION = re.compile(r"\s*(?:quality\s*)?(?P<sign>>+|<+|=+|≈|~)\s*")


def _choice(value: str, numbers: Numbering) -> Judgement:
    """The choice that ``value``, the text behind a label or a short reply, states."""
    value = _PARENTHESES.sub(" ", value) if _PARENTHESES.sub("", value).strip(" .") else value
    value = _DENIED.sub(" ", value).strip(" .,;:!-–[](){}…\n")
    bare = _BARE_NAME.match(value)
    if bare:
        reading = _bare(bare, value, numbers)
        if reading is not None:
            return reading
    mentions = _mentions(value, numbers)
    same = _SAME.search(value) if not _NOT_SAME.search(value) else None
    relation = _related(value, mentions)
    if relation is not None:
        return relation
    if same is not None and _states_equality(value, same, mentions):
        return Preference("comparable")
    if same is None and len(mentions) > 1 and _COMPARE.search(value):
        compared = _compared(value, numbers)
        if compared:
            return _only(compared)
    return _head(value, mentions, numbers)


def _bare(match: re.Match[str], value: str, numbers: Numbering) -> Judgement | None:
    """ "B", "2", "#2", "(a)", "B, because ..."; not "a slight ..." or "1.5"."""
    word, rest = match["bare"], value[match.end() :]
    follows = re.match(
        r"\s*(?:$|[,;:)–—-]\s|\.(?!\d)|\n|(?:is|has|looks|because|since|over"
        r"|than)\b)",
        rest,
    )
    relation = re.match(r"\s*(?:>|<|=|≈|~)+\s*(?:[AB12])\s*$", rest)
    if relation and rest.strip()[-1].isdigit() != word.isdigit():
        return None
    if (
        relation
        and word.upper() in {"A", "B", "1", "2"}
        and word.upper() != rest.strip()[-1].upper()
    ):
        return _by_sign(
            rest.strip()[0], {_letter(word)}, numbers if word.isdigit() else _FROM_TESTS
        )
    if not follows or re.match(r"\s*(?:or|/)\b", rest):
        if re.match(r"\s*(?:or|/|and)\s*[AB12]\b", rest):
            return Unparsed("ambiguous")
        return None
    if _rivals(rest):
        return Unparsed("ambiguous")
    if word.isdigit() or word.lower() in _WORD_NUMBERS:
        number = int(word[:6]) if word.isdigit() else _WORD_NUMBERS[word.lower()]
        named = _numbered(number, numbers if word.isdigit() else _FROM_TESTS, of_images=False)
        return _only([frozenset(named)]) if named else Unparsed("out of range")
    if word.islower() and rest.strip(" )."):
        return None
    return Preference(_letter(word))


def _rivals(rest: str) -> bool:
    return re.match(r"[\s,]*(?:(?:or|and)\s+)?[AB12]\b(?!\s*\w)", rest) is not None


def _letter(word: str) -> Choice:
    return "first" if word.upper() in {"A", "1", "ONE"} else "second"


def _by_sign(sign: str, left: set[Choice], numbers: Numbering) -> Judgement:
    if sign in "=≈~":
        return Preference("comparable")
    if numbers.n_before or len(left) != 1:
        return Unparsed("ambiguous")
    (choice,) = left
    return Preference(choice if sign == ">" else _other(choice))


def _other(choice: Choice) -> Choice:
    return {"first": "second", "second": "first"}.get(choice, choice)  # type: ignore[return-value]


def _related(value: str, mentions: list[_Mention]) -> Judgement | None:
    """ "Image 1 > Image 2" as the whole statement."""
    if len(mentions) != 2:
        return None
    left, right = mentions
    sign = _RELATION.fullmatch(value[left.end : right.start].removesuffix("the "))
    if sign is None or (left.choices == right.choices and len(left.choices) == 1):
        return None
    if value[: left.start].strip(" the") or value[right.end :].strip(" ."):
        return None
    return _by_sign(sign["sign"][0], set(left.choices), _FROM_TESTS)


def _states_equality(value: str, same: re.Match[str], mentions: list[_Mention]) -> bool:
    before = [m for m in mentions if m.start < same.start()]
    after = [m for m in mentions if m.start >= same.end()]
    if after and _JOINED.search(value[same.end() : after[0].start]):
        return False
    if not before:
        return True
    joined = re.search(
        r"\b(?:and|und|et|y|e)\b|&|和|与|と|и", value[before[0].end : before[-1].start]
    )
    return len(before) > 1 and joined is not None


def _head(value: str, mentions: list[_Mention], numbers: Numbering) -> Judgement:
    """The first choice named, unless others are named as alternatives to it."""
    if not mentions:
        return Unparsed("ambiguous" if _SAME.search(value) else "no answer")
    tail = value[mentions[0].end :]
    same = _SAME.search(tail)
    if same and re.search(r"\b(?:or|and)\s+(?:\w+\s+){0,2}$|/\s*$", tail[: same.start()]):
        return Unparsed("ambiguous")
    distinct = [m for m in mentions if m.choices != mentions[0].choices]
    if distinct:
        between = value[mentions[0].end : distinct[0].start]
        if not re.search(
            r"[,;:(–.!?（]|\s-\s|\b(?:because|since|as|while|whereas|though|although"
            r"|but)\b",
            between,
        ):
            return Unparsed("ambiguous")
        if any(_JOINED.search(value[a.end : b.start]) for a, b in itertools.pairwise(mentions)):
            return Unparsed("ambiguous")
        if re.fullmatch(r"\s*,\s*(?:the\s+)?", between):
            return Unparsed("ambiguous")
    if _WORSE.search(value[: distinct[0].start] if distinct else value):
        return _only(_compared(value, numbers) or [])
    return _only([mentions[0].choices])


def _only(named: list[frozenset[Choice]]) -> Judgement:
    """The one choice that all of ``named`` agree on."""
    if not named:
        return Unparsed("no answer")
    if len(set(named)) > 1 or len(named[0]) != 1:
        return Unparsed("ambiguous")
    (choice,) = named[0]
    return Preference(choice)


# --- comparisons in sentences ------------------------------------------------------------------

_BETTER = re.compile(
    r"\b(?:better|best|superior|preferable|outperforms?|wins?"
    r"|surpasses)\b(?!\s+(?:in (?:terms of )?)?(?P<attribute>"
    r"colou?rs?|contrast|sharpness|details?|noise|textures?|structures?|luminance|brightness"
    r"|exposure|lit\b"
    r"|exposed|saturat|preserv|defined|illumin|lighting|composition|balanced|focus|resolved"
    r"|clarity|edges?"
    r"|dynamic|definition|separation|rendition|retention|tonal|skin|highlights?|shadows?))"
    r"|\b(?:higher|greater|overall) (?:overall |perceptual |visual |image )?quality\b"
    r"|\bmore (?:similar|faithful|alike)\b|\b(?:closer|closest|most similar) to (?:the "
    r"|its )?(?:reference|original|image 1\b)"
    r"|更好|更高|较好|更接近|更佳|更优|bessere?[nrsm]?\b|besser|vorzuziehen|\bmeilleure?\b|\bmejor\b"
    r"|\bmelhor\b|лучше"
    r"|良い|優れ|더 (?:좋|낫|우수)",
    re.IGNORECASE,
)
_WORSE = re.compile(
    r"\b(?:worse|worst|inferior)\b|\b(?:lower|poorer|less) (?:overall |perceptual |visual "
    r"|image )?quality\b"
    r"|\bless similar\b|\bnot (?:as|so) good\b|\bfarther from the reference\b|更差|较差|schlechter"
    r"|\bpire\b|\bpeor\b"
    r"|хуже",
    re.IGNORECASE,
)
_PICK = re.compile(
    r"\b(?:prefer|choose|pick|select|go with|opt for|vote for|favou?r|change it to|settle on"
    r"|lean(?:ing)? towards?)"
    r"\b\s*:?\s*(?P<what>[^,;.!?\n]*)",
    re.IGNORECASE,
)
_NOT_PICKED = re.compile(
    r"(?:\b(?:not|never|hard|difficult|impossible|unable|reluctant)|n't)\s+(?:\w+\s+)?$",
    re.IGNORECASE,
)
_COMPARE = re.compile(f"{_BETTER.pattern.replace('?P<attribute>', '?:')}|{_WORSE.pattern}", re.I)
# what the subject is compared with is not the one that is judged
_COMPARAND = re.compile(
    r"\b(?:than|compared (?:to|with)|relative to|over|outperforms?|surpasses|(?:superior"
    r"|inferior) to"
    r"|as good as|(?:better|worse) of the two)\b[^,;.!?\n]*"
    r"|\b(?:que|als|чем|do que)\b[^,;.!?\n]*|比[^,;。,更]*|より",
    re.IGNORECASE,
)
_KEEP_WORD = re.compile(r"outperforms?|surpasses|superior|inferior|better|worse|as good as", re.I)
# sentences that ask, doubt, suppose or refuse
_UNSURE = re.compile(
    r"\b(?:whether|which|if|could|might|cannot|can't|unable|not able|would need|should be|either"
    r"|depends|taste"
    r"|ob|nicht sagen|initially|at first|thought|had leaned|draft|however slight)\b|\?|不能|无法",
    re.IGNORECASE,
)
_IF_FORCED = re.compile(
    r"\bif (?:i )?(?:(?:had|have|must|were|am)\s*(?:forced )?(?:to )?|forced(?: to)?"
    r"|pressed(?: to)?)"
    r"(?:choose|pick|decide|guess|say|make a choice)?(?: one)?\s*[,:]?",
    re.IGNORECASE,
)
_EQUALITY = re.compile(
    r"\b(?:qualit\w+|two|both|they|images?|pairs?|photo\w*|it'?s|it is|neither|second|first"
    r"|overall|there is)\b"
    r"(?=[^.!?\n]{0,80}(?:\bquality\b|\bcompar[ai]ble\b|\bequal\w*\b|\bneither\b"
    r"|\bindistinguishable\b|\bdraw\b|\btie\b"
    r"|\bon par\b|\bno \w* ?difference\b|\bequivalent\b|\balike\b))"
    r"|\bquality\b.{0,30}\bsame\b|(?:两|二者|双方|质量|画质).{0,20}(?:相当|相同|一样|差不多|同等)"
    r"|\bneither\b.{0,40}\b(?:better|superior)\b",
    re.IGNORECASE,
)
# "comparable to the reference" compares something else than the two
_WITH_THIRD = re.compile(
    r"\b(?:comparable|similar|equal|equivalent|identical|on par)(?: in \w+)? (?:to|with)"
    r" (?!each other|one another)(?!the (?:first|second|other))",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"\b(?:noise|sharpness|contrast|colou?rs?|exposure|textures?|details?|blur\w*|brightness"
    r"|luminance|scenes?|size"
    r"|resolution|composition|framing|content|reference|to the original|structures?|artifacts?"
    r"|levels?|degree)\b",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:overall|hence|therefore|thus|so|final(?:ly)?|conclusion|all in all|actually|however"
    r"|prefer|choose|"
    r"consequently|on balance|summary|in total|change|correction|would say)\b",
    re.IGNORECASE,
)


def _compared(sentence: str, numbers: Numbering) -> list[frozenset[Choice]]:
    """What the clauses of ``sentence`` call better; all of it where no clause names one."""
    sentence = _DENIED.sub(" ", _PARENTHESES.sub(" ", sentence))
    clauses = re.split(
        r"[,;:，；]\s*|\b(?:because|since|while|whereas|although|though|but|and(?= (?:the"
        r"|image)))\b|因为",
        sentence,
    )
    named = [c for clause in clauses if (c := _clause(clause, numbers)) is not None]
    if not named:
        whole = _clause(sentence, numbers)
        named = [whole] if whole is not None else []
    return named


def _clause(clause: str, numbers: Numbering) -> frozenset[Choice] | None:
    picked = _PICK.search(clause)
    if picked:
        if _NOT_PICKED.search(clause[: picked.start()]):
            return None
        clause = re.split(r"\b(?:over|to|than)\b", picked["what"], maxsplit=1)[0]
    else:
        if re.search(r"(?:\b(?:not|no)|n't) (?:\w+ )?(?:better|worse|superior|inferior)\b", clause):
            return None
        if not _COMPARE.search(clause):
            return None
        clause = _COMPARAND.sub(lambda m: " ".join(_KEEP_WORD.findall(m[0])), clause)
    named = {m.choices for m in _mentions(clause, numbers) + _letters(clause)}
    if len(named) != 1:
        return None
    (choices,) = named
    if not picked and _WORSE.search(clause) and not re.search(r"\bless (?:noise|blur)", clause):
        return frozenset(_other(c) for c in choices)
    return choices


def _letters(clause: str) -> list[_Mention]:
    """ "A is better": a capital that stands alone and is no article."""
    found = re.finditer(
        r"(?<!\w)([AB])(?=\s*(?:$|[,.;)]|(?:is|has|looks|because|due|as"
        r"|wins)\b))",
        clause,
    )
    return [_Mention(m.start(), m.end(), frozenset({_letter(m[1])})) for m in found]


def _equal(sentence: str) -> bool:
    if _NOT_SAME.search(sentence) or not _SAME.search(sentence) or not _EQUALITY.search(sentence):
        return False
    if (
        _WITH_THIRD.search(sentence)
        or len({m.choices for m in _mentions(sentence, _FROM_TESTS)}) == 1
    ):
        return False
    attribute = _ATTRIBUTE.search(sentence)
    if attribute is None or re.search(r"\bdiffer equally\b", sentence, re.IGNORECASE):
        return True
    return re.search(r"\b(?:overall|quality)\b", sentence, re.IGNORECASE) is not None


def read_prose(text: str, question: Question) -> Judgement:
    """The comparison that the sentences make; where they disagree, only a concluding one counts."""
    numbers = Numbering.of(text, question)
    readings: list[tuple[Judgement, str]] = []
    for sentence in sentences(text):
        sentence = _IF_FORCED.sub("I choose ", sentence)
        if _UNSURE.search(sentence) or about_example(sentence):
            continue
        named = _compared(sentence, numbers)
        if named:
            readings.append((_only(named), sentence))
        elif _equal(sentence):
            readings.append((Preference("comparable"), sentence))
    if not readings:
        return Unparsed("no answer")
    judgement, sentence = readings[-1]
    if len({r for r, _ in readings}) > 1 and not _CONCLUDES.search(sentence):
        return Unparsed("ambiguous")
    return judgement


# --- replies -----------------------------------------------------------------------------------

_LABEL = re.compile(
    r"(?:(?<![A-Za-z])(?:answer|anwser|anser|awnser|choice|decision|verdict|preference"
    r"|preferred(?: \w+)?|winner|result"
    r"|better (?:image|pair|quality|one)|best (?:image|pair)|conclusion|overall|judge?ment|ranking"
    r"|selection)"
    r"|答案|回答|选择|結論|结论|判断|antwort|entscheidung|respuesta|r[eé]ponse|resposta|risposta|ответ|답변|정답|답)"
    r"(?:\s+(?:for|of)\s+(?:the\s+)?test\s+(?:images?|pairs?))?"
    r"\s*(?:[:=→|]|\s[-–]\s|\b(?:is|would be|remains)\b|为|是|は"
    r"|\n(?=\s*\n?\s*\w+\s*$))+\s*(?P<value>[^\n]{1,400})",
    re.IGNORECASE,
)
_FILL_WORDS = re.compile(
    r"\b(?:the|an?|one|test|image|images|photo|photograph|picture|pair|quality|is|are|it|it's"
    r"|both|they|of"
    r"|my|choice|definitely|clearly|probably|number|option|das|die|der|la|le|el|o|bild|imagen"
    r"|second|first)\b"
    r"|张|枚目|[\W_]",
    re.IGNORECASE,
)


def read_preference(text: str, question: Question) -> Judgement:
    numbers = Numbering.of(text, question)
    for reading in (_labelled(text, numbers), _short(text.strip(), numbers)):
        if reading is not None:
            return reading
    if question.cut:
        return Unparsed("no answer")
    alone = _alone(text, numbers)
    return alone if alone is not None else read_prose(text, question)


def _labelled(text: str, numbers: Numbering) -> Judgement | None:
    """The last statement behind a label that names something; None where there is none."""
    reading: Judgement | None = None
    position = 0
    while match := _LABEL.search(text, position):
        position = match.start("value")
        context = clause_before(text, match.start())
        if about_example(context) or by_observer(text, match.start()):
            continue
        if re.search(r"\b(?:draft|initial|first)\s*$", context, re.IGNORECASE):
            continue
        value = re.split(
            r"(?<!\bno)[.!?。](?=\s|$)|\.\.\."
            r"|\n",
            match["value"].strip(),
            maxsplit=1,
        )[0]
        value = re.split(r"\b(?:answer)\s*:", value, flags=re.IGNORECASE)[0]
        judgement = _choice(value or match["value"], numbers)
        if judgement != Unparsed("no answer"):
            reading = judgement
        elif reading is None:
            reading = None
    return reading


_SIDE = rf"(?:the )?(?:first|second|(?:{_NOUN}\s*)?#?(?:[AB]|\d{{1,2}}))(?: {_NOUN})?"
_SIGNED = re.compile(rf"\W*{_SIDE}\s*[<>=≈~]+\s*{_SIDE}[\s.]*", re.IGNORECASE)


def _short(text: str, numbers: Numbering) -> Judgement | None:
    """A reply that is the choice alone; a longer sentence is left to `read_prose`."""
    judgement = None
    if len(text) > 80 or "\n" in text:
        return None
    if re.match(r"\s*-\s*\d", text):
        return Unparsed("out of range")
    if (
        _SIGNED.fullmatch(text)
        or _BARE_NAME.fullmatch(text.strip(" .!"))
        or re.fullmatch(r"\s*\(?[ABab12]\s*[).:]?\s*", text)
    ):
        judgement = _choice(text, numbers)
    else:
        rest = _NAME.sub(" ", text)
        rest = _SAME.sub(" ", rest)
        if not _FILL_WORDS.sub("", rest) and not _both_described(text):
            judgement = _choice(text, numbers)
    return judgement


# "The first image is the first test image" repeats who is who; it prefers nothing.
_ROLE = re.compile(
    r"\b(?:is|are|being)\s+(?:the\s+)?(?:(?:first|second|third|fourth)\s+)?"
    r"(?:reference|(?:test|example)\s+(?:image|pair|photo)\w*)\b(?!\s+that)",
    re.IGNORECASE,
)


def _alone(text: str, numbers: Numbering) -> Judgement | None:
    """The choice as the first sentence or a line of its own, if only one stands so."""
    parts = [part.strip() for part in text.split("\n") if part.strip()]
    parts = sentences(parts[0])[:1] + parts[1:] if parts else []
    short = [
        p
        for p in parts
        if len(p) <= 60 and not re.search(r"[:?]$|^[-•]|^\d+\.", p) and not _ROLE.search(p)
    ]
    readings = [r for p in short if isinstance(r := _short(p, numbers), Preference)]
    if len(set(readings)) > 1:
        return Unparsed("ambiguous")
    return readings[0] if readings else None


def _both_described(text: str) -> bool:
    """ "Both images": names two things and says nothing about them."""
    return not _NAME.search(text) and not _SAME.search(text)
