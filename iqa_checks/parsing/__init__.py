"""From the text of a reply to a judgement, or to `Unparsed` with a reason. Never to a guess.

A wrong reading is worse than none: whatever could mean two things is 'ambiguous'.

Reading rules
-------------
1.  What is read (`text`). The last 20,000 characters, normalised: NFKC, number words as digits, no
    control or ANSI codes, emoji, Markdown emphasis or LaTeX markup; a table row is read as
    "row column: cell". Reasoning in ``<think>`` tags is not read; where ``<answer>`` tags or a
    ``\\boxed{}`` exist, the last of them is all that is read. A placeholder copied from the
    prompt ("<number from 0 to 100>") is no answer, nor is its key of images; the brackets alone
    ("<64>") do no harm.
2.  A statement is a label ("Score", "Answer", "Ranks", words for them in other languages, JSON
    keys) and a value. The last statement wins over earlier ones, and a statement over any other
    text. Statements about the example, the reference, another observer, a single attribute
    ("Sharpness: 80") or a draft that was given up are none.
3.  Without a statement a reply is read only if it is the value alone, or says it in a form that
    cannot be anything else ("85/100", "the second image is better", "B > D > A > C"). Sentences
    that ask, doubt, suppose or refuse are not read. Where two such forms disagree, the last one
    counts only if it is marked as the conclusion ("so", "overall", "final").
4.  Two values offered as alternatives ("first or second", "40 or 80", "A=1-2") are no answer. A
    rating's range ("80-85") reads as its middle.
5.  A rating is resolved against its denominator or a scale that the reply states ("7.5/10" and
    "7 on a scale of 1 to 10"), else against 100, and must then lie in 0..100.
6.  A preference names the first, the second, or neither. "2", "B", "image 2" and "the latter" name
    the second; "left" and "right" nothing. "Better" must be said of the whole: "better contrast"
    is none. "The first is worse than the second" names the second. Where images precede the two
    tests (a reference, exemplars), numbers count either from them or from the tests: a number that
    could be both, or that the prompt gave to another picture, is ambiguous.
7.  A ranking gives one rank per stimulus, higher = better, as "A=2, B=0, ..." or as a bare list in
    presentation order, whole numbers from 0 or from 1; or it orders all stimuli ("B > D = A > C",
    "best to worst: ...", "B is best, then D, ..."). Every stimulus must occur exactly once. Numbers
    count the other way round only where the reply says so ("1 = best"). A bare list of 1..n not
    headed "ranks" is ambiguous: it may be the images in order. So are ranks that contradict what
    the same reply calls best or worst. An order by one attribute ("Noise: A > B") is none.
8.  A reply cut off at its length limit is read only where a statement stands in it, complete.
9.  Anything else is `Unparsed`: 'empty', 'refusal', 'truncated', 'ambiguous', 'out of range',
    'incomplete ranking' or 'no answer'.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from iqa_checks.parsing.preference import read_preference
from iqa_checks.parsing.ranking import read_ranking
from iqa_checks.parsing.rating import read_rating
from iqa_checks.parsing.text import Question, normalised
from iqa_checks.protocols import Answer, Judgement, Unparsed

_REFUSAL = re.compile(
    r"\b(?:sorry|unable|can(?:no|')t|cannot|could not|don't have the ability|not able|as an ai)\b"
    r"|无法|抱歉|对不起|不能|申し訳|できません|lo siento|no puedo|désolé|ne peux pas|leider"
    r"|nicht in der"
    r"|к сожалению|не могу|keine bilder sehen|no image was|did not load|please (?:upload|resend)",
    re.IGNORECASE,
)
_READERS: dict[Answer, Callable[[str, Question], Judgement]] = {
    "rating": read_rating,
    "preference": read_preference,
    "ranking": read_ranking,
}


def parse_reply(
    text: str,
    answer: Answer,
    *,
    n_stimuli: int = 4,
    n_before: int = 0,
    finish_reason: str = "stop",
    images_per_stimulus: int = 1,
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
    images_per_stimulus
        2 where pairs of photographs are judged: the number of an image then names no stimulus.

    Returns
    -------
    Rating, Preference, Ranking or Unparsed
    """
    cut = finish_reason == "length"
    plain = normalised(text)
    if not plain:
        return Unparsed("truncated" if cut else "empty")
    judgement = _READERS[answer](plain, Question(n_stimuli, n_before, cut, images_per_stimulus))
    if isinstance(judgement, Unparsed) and judgement.reason in {"no answer", "incomplete ranking"}:
        if cut:
            return Unparsed("truncated")
        refused = finish_reason == "content_filter" or _REFUSAL.search(plain)
        if refused and judgement.reason == "no answer":
            return Unparsed("refusal")
    return judgement
