"""The loopback endpoint: what it accepts, what it refuses, and what it counts."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import PIL.Image
import pytest

from iqa_checks.errors import UsageError
from iqa_checks.models import find_model
from iqa_checks.models.loopback import (
    Fault,
    LoopbackServer,
    main,
    server_process,
    stats_at,
)
from iqa_checks.models.observer import make_observer

QUESTION = "Images, in order: image 1 is the test image. Reply with one line:\nScore: N"


def encoded(image_format: str, shade: int = 90) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 24), (shade, 80, 70)).save(file, image_format)
    return file.getvalue()


def data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def body(*urls: str, model: str = "observer", **more: Any) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": QUESTION}, *images]
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


class Client:
    """One kept-alive connection, without any client library in between."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)

    def post(self, asked: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        data = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        headers = {"Content-Type": "application/json", **headers}
        self.connection.request("POST", "/v1/chat/completions", data, headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer("observer:noise=5") as running:
        yield running


@pytest.fixture
def client(server: LoopbackServer) -> Client:
    return Client(server.url)


def test_answers_as_the_observer_does_in_process(client: Client) -> None:
    image = encoded("PNG")
    observer = make_observer(find_model("observer:noise=5"))
    for repeat in (0, 1, 2):
        status, answer = client.post(body(data_url(image, "image/png"), seed=repeat))
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == observer.reply(
            QUESTION, [image], repeat=repeat
        )
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_accepts_what_chat_endpoints_decode(client: Client, image_format: str) -> None:
    url = data_url(encoded(image_format), f"image/{image_format.lower()}")
    assert client.post(body(url))[0] == 200


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (b"{", 400, "not a chat request"),
        ({"model": "observer"}, 400, "not a chat request"),
        (body(model="gpt-9"), 404, "'gpt-9' does not exist"),
        (body(data_url(encoded("PNG"), "image/jpeg")), 400, "the bytes are no image/jpeg"),
        (body("data:image/png;base64,@@@"), 400, "not base64"),
        (body("https://example.org/a.png"), 400, "expected data:image"),
        (body(data_url(b"BM", "image/bmp")), 400, "expected one of"),
        (body(stream=True), 400, "does not stream"),
    ],
)
def test_refuses_in_openais_form(client: Client, asked: Any, status: int, said: str) -> None:
    got, answer = client.post(asked)
    assert got == status
    assert said in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert client.get("/health") == (200, {"status": "ok"})


def test_counts_requests_images_and_connections(server: LoopbackServer, client: Client) -> None:
    first, second = encoded("PNG", 10), encoded("PNG", 20)
    for image in (first, second, first):
        client.post(body(data_url(image, "image/png")))
    assert client.get("/nowhere")[0] == 404
    stats = stats_at(server.url)
    assert (stats.requests, stats.distinct, stats.answered) == (3, 2, 3)
    assert (stats.image_parts, stats.distinct_images) == (3, 2)
    assert stats.image_bytes == 2 * len(first) + len(second)
    assert (stats.in_flight, stats.peak_in_flight) == (0, 1)
    assert stats.connections == 2  # the client's is kept alive; the other asked for these figures


def test_asks_for_its_key() -> None:
    with LoopbackServer(api_key="s3cret") as server:
        client = Client(server.url)
        status, answer = client.post(body())
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert client.post(body(), Authorization="Bearer s3cret")[0] == 200


def test_faults_by_request_number() -> None:
    script = {
        1: Fault("status", status=429, retry_after="3"),
        2: Fault("no_choices"),
        3: Fault("length"),
        4: Fault("reset"),
    }
    with LoopbackServer(faults=script.get) as server:
        client = Client(server.url)
        assert client.post(body())[0] == 429
        assert client.post(body())[1]["choices"] == []
        assert client.post(body())[1]["choices"][0]["finish_reason"] == "length"
        with pytest.raises(ConnectionError):
            client.post(body())
        assert Client(server.url).post(body())[0] == 200
        assert server.stats.answered == 1


def test_a_process_says_where_it_listens() -> None:
    with server_process("observer:noise=5", "--latency-ms", "5") as url:
        assert Client(url).post(body())[0] == 200
        assert stats_at(url).requests == 1


def test_says_what_is_wrong_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gpt-4o"])
    assert "no simulated model" in capsys.readouterr().err
    with LoopbackServer() as server:
        port = urlsplit(server.url).port
        assert port is not None
        with pytest.raises(UsageError, match=f"port {port}"):
            LoopbackServer(port=port).__enter__()
