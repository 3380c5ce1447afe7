"""What is read of a reply: plain text without markup, reasoning blocks and placeholders."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARS = 20_000  # of an overlong reply the end is read: that is where an answer stands


@dataclass(frozen=True, slots=True)
class Question:
    """What the reply answers, as far as its reading depends on it."""

    n_stimuli: int = 4
    n_before: int = 0
    cut: bool = False  # the endpoint stopped the reply at its length limit
    images_per_stimulus: int = 1


# --- normalisation -----------------------------------------------------------------------------

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL_TOKEN = re.compile(r"<\|[^<>|\n]{0,40}\|>|</?s>", re.IGNORECASE)
_THINK_OPEN = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>([^<]*)(?:</answer>|$)", re.IGNORECASE)
_VALUE_TAG = re.compile(r"</?(score|rating|answer|ranks?|ranking|preference|choice)>", re.I)
_LATEX = (
    (re.compile(r"\\d?frac\{([^{}]{0,40})\}\{([^{}]{0,40})\}"), r"\1/\2"),
    (re.compile(r"\\(?:text\w{0,8}|math\w{0,8}|operatorname)\s?\{([^{}]{0,400})\}"), r"\1"),
    (re.compile(r"\\(?:succ|gt)\b"), ">"),
    (re.compile(r"\\(?:prec|lt)\b"), "<"),
    (re.compile(r"\\(?:approx|sim|simeq)\b"), "≈"),
    (re.compile(r"\\(?:rightarrow|to)\b"), "→"),
    (re.compile(r"\\(?:[,;:! ]|q?quad\b)|\\[()\[\]]|\$"), " "),
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\{([^{}]*)\}")
_STATEMENT = re.compile(r"\w\s*[:=]|\bis\b")
# "<64>" or "<first>" is an answer with the brackets of the form kept; "<number from 0 to 100>" is
# the form itself
_KEPT_BRACKETS = re.compile(
    r"(?<![\w])<\s?((?:the )?(?:first|second)(?: image)?|comparable|-?\d+(?:[.,]\d+)?)\s?>", re.I
)
_PLACEHOLDER = re.compile(r"<[A-Za-z][^<>=\n]{1,80}>")
# the prompt's key of images, repeated: "image 3 is the second test image;"
_KEY = re.compile(
    r"\bimages? \d+ is (?:the )?(?:first |second )?(?:(?:test|example) (?:image|pair)"
    r"|photograph of (?:the )?[a-z ]{4,30}pair|reference(?: of the example)?)(?: [A-J])?"
    r"\s*(?:[;.]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_EMPHASIS = re.compile(r"[*`\"“”‘’«»„]+|(?<!\w)_+|_+(?!\w)|(?<!\w)'|'(?!\w)")
_MEDALS = str.maketrans({"🥇": "1st place: ", "🥈": "2nd place: ", "🥉": "3rd place: "})
_ARROWS = str.maketrans({"➔": "→", "➜": "→", "⇒": "→", "≻": ">", "≺": "<", "−": "-"})
_SAME = str.maketrans({"≃": "≈", "≅": "≈", "∼": "≈", "～": "~", "〜": "~", "—": "–", "―": "–"})


def normalised(text: str) -> str:
    """The part of ``text`` that may hold the answer, as plain text."""
    text = html.unescape(_ANSI.sub("", text[-MAX_CHARS:]))
    text = unicodedata.normalize("NFKC", text.translate(_MEDALS)).translate(_ARROWS)
    text = _without_reasoning(_CONTROL_TOKEN.sub(" ", text.translate(_SAME)))
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = _unboxed(_inside_answer_tag(text))
    text = _VALUE_TAG.sub(lambda m: "\n" if "/" in m[0] else f"\n{m[1]}: ", text)
    text = _PLACEHOLDER.sub(" ", _KEPT_BRACKETS.sub(r" \1 ", text))
    text = _KEY.sub(" ", _EMPHASIS.sub("", text).replace("\\", " "))
    text = re.sub(r"(?m)^[ \t]*(?:>[ \t]*)+|^[ \t]*#+[ \t]+", "", _printable(text))
    text = re.sub(r"(?<=[A-Za-z])_(?=[A-Za-z])", " ", text)
    return "\n".join(_tables_as_statements(text.splitlines())).strip()


def _without_reasoning(text: str) -> str:
    closed = list(_THINK_CLOSE.finditer(text))
    if closed:
        text = text[closed[-1].end() :]
    opened = _THINK_OPEN.search(text)
    return text[: opened.start()] if opened else text


def _inside_answer_tag(text: str) -> str:
    found = [inner for inner in _ANSWER_TAG.findall(text) if inner.strip()]
    return _labelled(found[-1]) if found else text


def _unboxed(text: str) -> str:
    """The last box alone; several boxes on one line ("A=\\boxed{2}, B=...") are only unwrapped."""
    boxes = [box for box in _BOXED.finditer(text) if box[1].strip()]
    if boxes and "\n" in text[boxes[0].end() : boxes[-1].start()] + "\n" * (len(boxes) == 1):
        return _labelled(boxes[-1][1])
    return _BOXED.sub(r"\1", text)


def _labelled(value: str) -> str:
    return value if _STATEMENT.search(value) else f"answer: {value.strip()}"


def _printable(text: str) -> str:
    """Symbols that are no letters (emoji, marks of keycaps) and control characters as blanks."""
    kept = (c if c in "\n><=≈~→|+%°±" or _is_text(c) else " " for c in text)
    return re.sub(r"[^\S\n]+", " ", "".join(kept).replace("\u20e3", ""))


def _is_text(char: str) -> bool:
    return (char.isascii() and char >= " ") or (
        unicodedata.category(char)[0] in "LNPM" and not ("\ufe00" <= char <= "\ufe0f")
    )


# --- tables ------------------------------------------------------------------------------------

_RULE = re.compile(r"[\s|:+-]*-{2,}[\s|:+-]*")


def _tables_as_statements(lines: list[str]) -> Iterator[str]:
    """A row "| A | blur | 2 |" under "Image, Defect, Rank" as "A Defect: blur", "A Rank: 2"."""
    k = 0
    while k < len(lines):
        if k + 1 < len(lines) and "|" in lines[k] and _RULE.fullmatch(lines[k + 1]):
            header, k = _cells(lines[k]), k + 2
            while k < len(lines) and "|" in lines[k]:
                yield from _row(header, _cells(lines[k]))
                k += 1
        else:
            yield lines[k]
            k += 1


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _row(header: list[str], row: list[str]) -> Iterator[str]:
    if len(header) > 1 and all(re.fullmatch(r"(?:\w+ )?[A-Z1-9]", cell) for cell in header):
        yield ", ".join(f"{name}={cell}" for name, cell in zip(header, row, strict=False))
        return
    if len(header) == 1:
        yield f"{header[0]}: {row[0]}"
    subject = row[0] if len(row[0].split()) <= 3 else ""
    for name, cell in zip(header[1:], row[1:], strict=False):
        yield f"{subject} {name}: {cell}"


# --- sentences and contexts --------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_CLAUSE_END = re.compile(r"[,;:.!?\n，。；：、](?:\s|$)|[，。；：\n]")
_OTHERS = re.compile(
    r"\b(?:examples?|exemplars?|references?|original|undistorted|pristine)\b",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(r"\b(?:examples?|exemplars?)\b", re.IGNORECASE)
_OBSERVER = re.compile(
    r"\b(?:observer|rater|annotator|expert|viewer|person|participant)s? (?:\d|[A-Z]\b|one\b"
    r"|two\b)",
    re.I,
)
_OURS = re.compile(r"\b(?:test|distorted|degraded|compressed|image 2|second|this)\b", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def sentence_before(text: str, position: int, reach: int = 300) -> str:
    """What stands before ``position`` in its sentence."""
    head = text[max(0, position - reach) : position]
    return _SENTENCE_END.split(head)[-1]


def clause_before(text: str, position: int, reach: int = 200) -> str:
    """What stands before ``position`` in its clause."""
    return _CLAUSE_END.split(text[max(0, position - reach) : position])[-1]


def about_others(context: str) -> bool:
    """Whether ``context`` speaks of the example or the reference last."""
    return _last_is(_OTHERS, context)


def about_example(context: str) -> bool:
    """Whether ``context`` speaks of the example last; a comparison names the reference anyway."""
    return _last_is(_EXAMPLE, context)


def _last_is(pattern: re.Pattern[str], context: str) -> bool:
    others, ours = last(pattern, context), last(_OURS, context)
    return others is not None and (ours is None or ours.start() < others.start())


def by_observer(text: str, position: int) -> bool:
    """Whether the sentence that holds ``position`` quotes somebody ("Rater 2: score 75")."""
    return _OBSERVER.search(sentence_before(text, position)) is not None


def last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found
