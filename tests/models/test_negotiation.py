"""Parameters that an endpoint refuses: recognised, left out once, and told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from iqa_checks.broker import Broker
from iqa_checks.errors import EndpointError, RequestFailed
from iqa_checks.models import Access, ModelSpec, find_model
from iqa_checks.models.loopback import LoopbackServer
from iqa_checks.models.negotiation import Terms, refused_parameter
from iqa_checks.models.openai_chat import OpenAIChat, parameters_of
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply, ReplyStore

ASKED = {"temperature": 0, "max_tokens": 64, "seed": 3, "detail": "high", "logprobs": True,
         "top_logprobs": 20}  # fmt: skip
MAX_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. "
    "Only the default (1) value is supported."
)


# --- what a refusal is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"message": MAX_TOKENS, "param": "max_tokens"}, "max_tokens"),
        ({"error": {"message": MAX_TOKENS, "code": "invalid_request_body"}}, "max_tokens"),
        ({"message": TEMPERATURE, "param": "temperature"}, "temperature"),
        ({"message": "invalid temperature: only 1 is allowed for this model"}, "temperature"),
        ({"message": "`temperature` is deprecated: unexpected parameter"}, "temperature"),
        ([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], "seed"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ({"message": "Invalid value for 'top_logprobs': must be less than or equal to 5.",
          "param": "top_logprobs"}, "top_logprobs"),
        ({"message": "Requested sample logprobs of 20, which is greater than max allowed: 5"},
         "top_logprobs"),
        ({"message": "You are not allowed to request logprobs from this model"}, "top_logprobs"),
        ({"message": "image_url.detail is not supported"}, "detail"),
    ],
)  # fmt: skip
def test_refusals_as_endpoints_word_them(answer: Any, name: str) -> None:
    assert refused_parameter(ASKED, answer) == name


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        {"message": "max_tokens is too large: 2000. This model's context holds 2048 tokens"},
        {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]},
        {"message": "The image is not supported: expected PNG or JPEG", "param": "messages"},
        {"message": "temperature is nice today"},
        {"message": "Unsupported parameter: 'top_p' is not supported", "param": "top_p"},
        [[[[[[[["seed is not supported"]]]]]]]],
        {"message": {"message": 7}},
    ],
)
def test_other_errors_refuse_no_parameter(answer: Any) -> None:
    assert refused_parameter(ASKED, answer) is None


def test_a_parameter_that_was_not_sent_cannot_be_refused() -> None:
    assert refused_parameter({"max_tokens": 3}, {"message": TEMPERATURE}) is None


# --- terms --------------------------------------------------------------------------------------


def test_terms_hold_for_all_later_requests() -> None:
    terms = Terms()
    assert terms.refused(ASKED, terms.sent(ASKED), {"message": MAX_TOKENS, "param": "max_tokens"})
    assert terms.refused(ASKED, terms.sent(ASKED), {"message": TEMPERATURE})
    assert terms.sent(ASKED) == {
        "max_completion_tokens": 64, "seed": 3, "detail": "high", "logprobs": True,
        "top_logprobs": 20,
    }  # fmt: skip
    assert terms.sent({"max_tokens": 9}) == {"max_completion_tokens": 9}
    assert "temperature=0 was refused" in terms.changed(ASKED)
    assert "not deterministic" in terms.changed(ASKED)
    assert terms.changed({"max_tokens": 9}) == "max_tokens is sent as max_completion_tokens"
    assert terms.changed({"seed": 1}) == ""


def test_log_probabilities_are_bargained_down() -> None:
    terms = Terms()
    too_many = {"message": "must be less than or equal to 5", "param": "top_logprobs"}
    assert terms.refused(ASKED, terms.sent(ASKED), too_many)
    assert (terms.sent(ASKED)["logprobs"], terms.sent(ASKED)["top_logprobs"]) == (True, 5)
    assert terms.refused(ASKED, terms.sent(ASKED), {"message": "logprobs are not supported"})
    assert not {"logprobs", "top_logprobs"} & terms.sent(ASKED).keys()
    assert terms.changed(ASKED) == "log-probabilities were refused: answers are read as written"


def test_requests_that_were_under_way_learn_nothing_new() -> None:
    """Two were refused at once: the second is sent again, and nothing is left out twice."""
    terms, stale = Terms(), dict(ASKED)
    for _ in range(2):
        assert terms.refused(ASKED, stale, {"message": TEMPERATURE})
        assert terms.refused(ASKED, stale, {"message": MAX_TOKENS, "param": "max_tokens"})
        too_many = {"message": "must be at most 5", "param": "top_logprobs"}
        assert terms.refused(ASKED, stale, too_many)
    assert terms.sent(ASKED)["max_completion_tokens"] == 64
    assert terms.sent(ASKED)["top_logprobs"] == 5


def test_what_was_accepted_cannot_be_refused_later() -> None:
    terms = Terms()
    terms.accepted(terms.sent(ASKED))
    with pytest.raises(RequestFailed, match="temperature is refused here and was accepted before"):
        terms.refused(ASKED, terms.sent(ASKED), {"message": TEMPERATURE})


def test_nothing_left_to_try() -> None:
    """Both names of one thing."""
    terms = Terms()
    assert terms.refused(ASKED, terms.sent(ASKED), {"message": MAX_TOKENS, "param": "max_tokens"})
    answer = {"message": "'max_completion_tokens' is not supported"}
    assert not terms.refused(ASKED, terms.sent(ASKED), answer)


def test_a_model_may_need_more_tokens_than_a_strategy_allows() -> None:
    prompt = Prompt("?", (), "rating", 1, 0, "x", 256)
    thinker = ModelSpec("m", "openai", "m", {"max_tokens": 8000})
    assert parameters_of(thinker, prompt) == {"max_tokens": 8000}
    assert parameters_of(find_model("openai:m"), prompt) == {"temperature": 0, "max_tokens": 256}


# --- over HTTP ----------------------------------------------------------------------------------


def prompts(n: int, **more: Any) -> list[Prompt]:
    return [Prompt(f"Question {k}?", (), "rating", 1, 0, "x", 32, **more) for k in range(n)]


def ask(
    server: LoopbackServer, asked: list[Prompt], tmp_path: Any, **parameters: Any
) -> list[Reply]:
    async def run() -> list[Reply]:
        spec = ModelSpec("m", "openai", "observer", {"temperature": 0, **parameters})
        store = ReplyStore(str(tmp_path / "store.sqlite"), identity="one", model="m", fresh=True)
        broker = Broker(OpenAIChat(spec, Access((server.url,), timeout_s=10)), store)
        try:
            return await broker.ask(asked)
        finally:
            await broker.close(finished=True)

    return asyncio.run(run())


@pytest.mark.parametrize("form", ["openai", "fastapi", "google"])
@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_one_refusal_for_forty_requests(form: Any, name: str, tmp_path: Any) -> None:
    with LoopbackServer(refused=[name], form=form) as server:
        replies = ask(server, prompts(40), tmp_path)
        assert (server.stats.requests, server.stats.answered) == (41, 40)
    assert {reply.changed.split()[0].partition("=")[0] for reply in replies} == {name}


def test_refusals_of_requests_that_go_together(tmp_path: Any) -> None:
    """A seed goes only with repeats: sixteen at once are refused, and each is answered."""
    once, again = prompts(16), prompts(16, repeat=1000)
    with LoopbackServer(refused=["seed", "temperature"], latency_s=0.02) as server:
        replies = ask(server, [*once, *again], tmp_path)
        assert server.stats.answered == 32
        assert server.stats.requests <= 32 + 1 + 16
    assert ["seed" in reply.changed for reply in replies] == [False] * 16 + [True] * 16


def test_all_at_once_are_bargained_in_a_row(tmp_path: Any) -> None:
    with LoopbackServer(refused=["temperature", "max_tokens"], most_logprobs=5) as server:
        (reply,) = ask(server, prompts(1, top_logprobs=20), tmp_path)
        assert server.stats.requests == 4
    assert reply.changed.count(";") == 2


def test_another_bad_request_is_still_one(tmp_path: Any) -> None:
    with LoopbackServer(refused=["max_tokens", "max_completion_tokens"]) as server:
        with pytest.raises(EndpointError, match="'max_completion_tokens' is not supported"):
            ask(server, prompts(1), tmp_path)
        assert server.stats.requests == 2


def test_detail_goes_with_each_image(tmp_path: Any, picture: Any) -> None:
    """And is left out where it is refused."""
    import hashlib

    from iqa_checks.stimuli import Image

    data = picture()
    (tmp_path / "a.png").write_bytes(data)
    shown = Image(tmp_path / "a.png", hashlib.sha256(data).hexdigest(), "image/png", 24, 16)
    prompt = Prompt("?", (shown,), "rating", 1, 0, "x", 32)
    spec = ModelSpec("m", "openai", "observer", {"detail": "high"})
    body = json.loads(OpenAIChat(spec, Access(("http://127.0.0.1:1/v1",)))._body(
        prompt, parameters_of(spec, prompt)))  # fmt: skip
    assert body["messages"][0]["content"][1]["image_url"]["detail"] == "high"
    assert "detail" not in body
    with LoopbackServer(refused=["detail"]) as server:
        (reply,) = ask(server, [prompt], tmp_path, detail="high")
        assert server.stats.answered == 1
    assert reply.changed.startswith("detail=high was refused")


def test_a_resumed_run_has_the_same_key_and_the_same_story(tmp_path: Any) -> None:
    """The key is of what was asked; the store knows what was sent."""
    with LoopbackServer(refused=["temperature"]) as server:
        (first,) = ask(server, prompts(1), tmp_path)
    store = ReplyStore(str(tmp_path / "store.sqlite"), identity="two", model="m")

    async def replay() -> list[Reply]:
        spec = ModelSpec("m", "openai", "observer", {"temperature": 0})
        broker = Broker(OpenAIChat(spec, Access()), store, policy="replay")
        try:
            return await broker.ask(prompts(1))
        finally:
            await broker.close(finished=True)

    (again,) = asyncio.run(replay())
    assert (again.text, again.changed, again.origin) == (first.text, first.changed, "reused")
