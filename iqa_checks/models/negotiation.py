"""Parameters that an endpoint will not take: found out once, said loudly, then left alone.

Endpoints that speak the same protocol differ in what they accept: reasoning models take no
temperature and call ``max_tokens`` another name, some know no ``seed``, some give five
log-probabilities and some none. The first request that is refused for such a parameter is sent
again without it, and so is every later one. What was changed is kept with each reply.

The key of a request holds the parameters that were asked for, not those that were sent: a run that
is taken up again finds its replies, and the same question has one key at every endpoint.

A parameter that was accepted once is settled: an endpoint that refuses it later answers under two
sets of conditions, and that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from iqa_checks.errors import RequestFailed

FEWER_LOGPROBS = 5  # Azure's most, and that of vLLM where it is not told otherwise

Parameters = dict[str, Any]

_REFUSED = re.compile(
    r"unsupported|n[o']t support|unknown|unrecogni[sz]ed|unexpected|extra (?:inputs|fields)"
    r"|not (?:permitted|allowed|available|enabled)|cannot find field|only the default"
    r"|only \S+ is (?:allowed|supported)|invalid parameter|use '?max_completion_tokens",
    re.IGNORECASE,
)
_OUT_OF_RANGE = re.compile(
    r"less than|greater than|at most|maximum|between|range|invalid value|exceed", re.IGNORECASE
)


class Terms:
    """What one endpoint takes of the parameters that are asked for.

    All URLs of a run share one: replies must not depend on the URL that gave them. Not for use by
    several threads at once.
    """

    def __init__(self) -> None:
        self._changes: dict[str, tuple[str, Callable[[Parameters], None]]] = {}
        self._settled: set[str] = set()

    def sent(self, asked: Mapping[str, Any]) -> Parameters:
        """The parameters to send where ``asked`` are asked for."""
        sent = dict(asked)
        for name, (_, change) in self._changes.items():
            if name in asked:
                change(sent)
        return sent

    def changed(self, asked: Mapping[str, Any]) -> str:
        """What of ``asked`` is not sent as asked, in sentences joined by "; "; '' for nothing."""
        return "; ".join(said for name, (said, _) in self._changes.items() if name in asked)

    def accepted(self, sent: Mapping[str, Any]) -> None:
        """A request with these parameters was answered."""
        self._settled |= sent.keys()

    def refused(self, asked: Mapping[str, Any], sent: Mapping[str, Any], answer: Any) -> bool:
        """Learn from the body of a refusal; whether the request may be sent again.

        Raises `RequestFailed` where a parameter is refused that was accepted before.
        """
        name = refused_parameter(sent, answer)
        if name is None:
            return False
        if self.sent(asked).get(name) != sent.get(name):  # another request has found it out
            return True
        step = _next_step(name, asked, sent)
        if step is None:
            return False
        if name in self._settled:
            raise RequestFailed(
                f"{name} is refused here and was accepted before: answers under two sets of "
                "parameters are not comparable; serve the same model behind every --iqa-base-url"
            )
        self._changes |= step
        return True


def refused_parameter(sent: Mapping[str, Any], answer: Any) -> str | None:
    """The parameter that an error's body refuses, None where it is about something else.

    A value that is too large ("max_tokens is too large: the context has 2048") is no refusal.
    """
    said = list(_strings(answer))
    text = " ".join(said)[:4000]
    stated = _stated(answer)
    mentioned = [stated] if stated in _STEPS else _mentioned(text)
    for name in mentioned:
        asked_for = name in sent or (name == "logprobs" and "top_logprobs" in sent)
        reasons = [_REFUSED, _OUT_OF_RANGE] if "logprobs" in name else [_REFUSED]
        if asked_for and any(reason.search(text) for reason in reasons):
            return "top_logprobs" if name == "logprobs" and "top_logprobs" in sent else name
    return None


def _stated(answer: Any) -> str | None:
    """``param`` of an error in OpenAI's form."""
    while isinstance(answer, list) and answer:
        answer = answer[0]
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        answer = answer["error"]
    param = answer.get("param") if isinstance(answer, dict) else None
    return param if isinstance(param, str) else None


def _mentioned(text: str) -> list[str]:
    """Names of parameters in the order in which ``text`` has them."""
    found = {name: re.search(rf"\b{name}\b", text) for name in _STEPS}
    return sorted((n for n, m in found.items() if m), key=lambda n: found[n].start())  # type: ignore[union-attr]


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """All texts in an error's body but the names of its fields: some envelopes say "detail"."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)) and depth < 6:
        for inside in value.values() if isinstance(value, dict) else value:
            yield from _strings(inside, depth + 1)


Step = dict[str, tuple[str, Callable[[Parameters], None]]]


def _next_step(name: str, asked: Mapping[str, Any], sent: Mapping[str, Any]) -> Step | None:
    """What to do about ``name``; None where nothing is left to try."""
    return _STEPS[name](asked, sent) if name in asked or name in sent else None


def _left_out(name: str, consequence: str) -> Callable[..., Step]:
    def step(asked: Mapping[str, Any], _sent: Mapping[str, Any]) -> Step:
        said = f"{name}={asked[name]} was refused and is left out: {consequence}"
        return {name: (said, lambda sent: sent.pop(name, None))}

    return step


def _renamed(name: str, other: str) -> Callable[..., Step | None]:
    def step(asked: Mapping[str, Any], _sent: Mapping[str, Any]) -> Step | None:
        if name not in asked:
            return None  # it is what the other name was changed to

        def change(sent: Parameters) -> None:
            sent[other] = sent.pop(name)

        return {name: (f"{name} is sent as {other}", change)}

    return step


def _fewer(asked: Mapping[str, Any], sent: Mapping[str, Any]) -> Step:
    if sent.get("top_logprobs", 0) > FEWER_LOGPROBS:
        said = f"top_logprobs={asked['top_logprobs']} was refused: {FEWER_LOGPROBS} are asked for"
        return {"top_logprobs": (said, lambda s: s.update(top_logprobs=FEWER_LOGPROBS))}

    def none(sent: Parameters) -> None:
        sent.pop("logprobs", None)
        sent.pop("top_logprobs", None)

    return {"top_logprobs": ("log-probabilities were refused: answers are read as written", none)}


_STEPS: dict[str, Callable[..., Step | None]] = {
    "temperature": _left_out(
        "temperature", "the model's own holds, and its answers are not deterministic"
    ),
    "max_tokens": _renamed("max_tokens", "max_completion_tokens"),
    "max_completion_tokens": _renamed("max_completion_tokens", "max_tokens"),
    "seed": _left_out("seed", "repeats differ by the model's own chance alone"),
    "detail": _left_out("detail", "the endpoint looks at images in its own way"),
    "top_logprobs": _fewer,
    "logprobs": _fewer,
}
