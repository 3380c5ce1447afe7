"""Engines as real processes: how they start, fail and end, and what a model's identity is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from iqa_checks import broker as broker_module
from iqa_checks.broker import LocalAsker, open_asker
from iqa_checks.errors import EndpointError, InfrastructureError, UsageError
from iqa_checks.models import (
    Access,
    ModelSpec,
    Serving,
    default_model,
    engines,
    find_model,
    open_backend,
    weights,
)
from iqa_checks.models.engines import ENGINES, choose, find_engine, tensor_parallel
from iqa_checks.models.loopback import Fault, LoopbackServer
from iqa_checks.models.openai_chat import OpenAIChat
from iqa_checks.models.weights import folder_of, weights_hash
from iqa_checks.prompts import Prompt
from iqa_checks.stimuli import Image

FAKE = Path(__file__).with_name("fake_engine.py")
TEXT = "Images, in order: image 1 is the test image. Reply with one line:\nScore: N"
Open = Callable[..., LocalAsker]


def model_folder(path: Path, *, heads: int = 8, content: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"text_config": {"num_attention_heads": heads}}))
    (path / "model.safetensors").write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "weights" / "tiny")


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    path = tmp_path / "stimulus.png"
    PIL.Image.new("RGB", (16, 12), (90, 70, 50)).save(path)
    shown = Image(path, hashlib.sha256(path.read_bytes()).hexdigest(), "image/png", 16, 12)
    return [Prompt(TEXT, (shown,), "rating", 1, 0, "x", 64, repeat=k + 1) for k in range(6)]


@pytest.fixture
def open_run(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens askers of the fake engine; those that a test leaves open end as if interrupted."""
    monkeypatch.setattr(broker_module, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(broker_module, "GRACE_S", 1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened: list[LocalAsker] = []

    def start(
        behaviour: str = "ok",
        *,
        more: str = "",
        serving: dict[str, Any] | None = None,
        **given: Any,
    ) -> LocalAsker:
        command = (
            f"{sys.executable} {FAKE} --model {{model}} --port {{port}} "
            f"--pids {tmp_path / 'pids'} --behaviour {behaviour} {more}"
        )
        how = {"engine": command, "logs": tmp_path / "logs", "timeout_s": 30.0, **(serving or {})}
        access = Access(timeout_s=10, serving=Serving(**how))
        store = str(tmp_path / "replies.sqlite")
        opened.append(open_asker(str(folder), store=store, access=access, **given))
        return opened[-1]

    yield start
    for asker in opened:
        if asker._thread.is_alive():
            asker.close(finished=False)


def started(tmp_path: Path) -> list[list[int]]:
    """The processes of each start: the engine and its child."""
    lines = (tmp_path / "pids").read_text().splitlines() if (tmp_path / "pids").exists() else []
    return [[int(pid) for pid in line.split()] for line in lines]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def all_gone(pids: list[int], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


# --- Life and death ------------------------------------------------------------------------------


def test_it_starts_at_the_first_question_and_ends_with_the_run(open_run, tmp_path, prompts):
    """Nothing is started before, one server for everything after, and its child ends too."""
    asker = open_run()
    assert not started(tmp_path)
    assert [reply.text for reply in asker.ask(prompts)]
    asker.ask(prompts[:2])
    (pids,) = started(tmp_path)
    assert all(map(alive, pids))
    asker.close(finished=True)
    assert all_gone(pids, 1)
    log = (tmp_path / "logs/tiny.log").read_text()
    assert "fake_engine.py --model" in log
    assert "\nready" in log


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("dies", "no CUDA device is available"), ("hangs", r"not ready within 1\.5 s \(--iqa-engine")],
)
def test_one_that_never_gets_ready_ends_the_run(open_run, tmp_path, prompts, behaviour, said):
    """With the end of its log and where the rest is; at once where it died."""
    asker = open_run(behaviour, serving={"timeout_s": 1.5 if behaviour == "hangs" else 60})
    before = time.monotonic()
    with pytest.raises(EndpointError, match=said) as caught:
        asker.ask(prompts)
    assert time.monotonic() - before < 20
    assert str(tmp_path / "logs/tiny.log") in str(caught.value)
    (pids,) = started(tmp_path)
    assert all_gone(pids)
    assert isinstance(asker.broker.fatal, EndpointError)


def test_one_that_dies_in_the_middle_ends_the_run(open_run, tmp_path, prompts):
    """It is an error that names the log, not a hang and not a data point."""
    asker = open_run("mid-run", concurrency=1)
    with pytest.raises(
        EndpointError, match=r"ended while it was asked \(exit status 3\)"
    ) as caught:
        asker.ask(prompts)
    assert "device-side assert" in str(caught.value)
    assert all_gone(started(tmp_path)[0])


def test_one_that_is_killed_leaves_no_child(open_run, tmp_path, prompts):
    """A server's workers hold the memory of the GPU."""
    asker = open_run()
    asker.ask(prompts[:1])
    pids = started(tmp_path)[0]
    os.kill(pids[0], signal.SIGKILL)
    assert all_gone(pids)
    with pytest.raises(EndpointError, match="ended while it was asked"):
        asker.ask(prompts)


def test_one_that_will_not_end_is_killed(open_run, tmp_path, prompts):
    asker = open_run("deaf")
    asker.ask(prompts[:1])
    asker.close(finished=True)
    assert all_gone(started(tmp_path)[0], 1)


def test_a_run_that_ends_while_it_starts_does_not_wait(open_run, tmp_path, prompts):
    """As after Ctrl-C while a large model loads."""
    asker = open_run("hangs")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asker.ask, prompts)
        deadline = time.monotonic() + 30
        while not started(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        before = time.monotonic()
        asker.close(finished=False)
        assert time.monotonic() - before < 8
        assert isinstance(asking.exception(10), (CancelledError, InfrastructureError))
    assert all_gone(started(tmp_path)[0], 1)


def test_a_port_in_use(open_run, prompts):
    """The free port that was chosen may be taken in the meantime: the log says so."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        asker = open_run(more=f"--port {other.getsockname()[1]}")
        with pytest.raises(EndpointError, match="address already in use"):
            asker.ask(prompts)


def test_no_key_reaches_it_and_none_its_log(open_run, tmp_path, prompts, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    open_run().ask(prompts[:1])
    log = (tmp_path / "logs/tiny.log").read_text()
    assert "OPENAI_API_KEY" not in log
    assert "HF_TOKEN" not in log
    assert "secret" not in log
    assert "'HF_HUB_OFFLINE'" in log


def test_code_that_comes_with_weights_needs_a_word(open_run, folder, prompts):
    """The engine finds out; models.yaml may know before."""
    with pytest.raises(EndpointError, match=f"read the .py files in {folder}.*\n*.*remote-code"):
        open_run("code").ask(prompts)
    trusting = open_run("code", serving={"trust_remote_code": True})
    assert trusting.ask(prompts[:1])
    spec = replace(find_model(str(folder)), trust_remote_code=True)
    with pytest.raises(UsageError, match="--iqa-trust-remote-code"):
        open_backend(spec, Access())


def test_a_replay_starts_nothing(open_run, tmp_path, prompts):
    asker = open_run()
    texts = [reply.text for reply in asker.ask(prompts)]
    asker.close(finished=True)
    again = open_run(policy="replay")
    assert [reply.text for reply in again.ask(prompts)] == texts
    assert len(started(tmp_path)) == 1


def test_somebody_elses_server_is_asked_without_an_engine(folder):
    backend = open_backend(find_model(str(folder)), Access(("http://127.0.0.1:1/v1",)))
    assert isinstance(backend, OpenAIChat)


@pytest.mark.parametrize(
    "said",
    [
        "At most 1 image(s) may be provided in one prompt.",
        "unsupported image format: image/png",
        "This model's maximum context length is 4096 tokens; your request has 9133.",
    ],
)
def test_an_endpoint_that_rejects_what_it_is_shown(tmp_path, prompts, said):
    """Several images, PNG, more than its context: in its own words, on the first request."""
    with LoopbackServer(faults=lambda _: Fault("status", 400, message=said)) as server:
        asker = open_asker(
            "openai:observer", store=str(tmp_path / "r.sqlite"), access=Access((server.url,))
        )
        with pytest.raises(EndpointError, match=re.escape(said)):
            asker.ask(prompts)
        asker.close(finished=False)
        assert server.stats.requests == 1


# --- Which engine, and how -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vlm", "unknown engine 'vlm'. Did you mean 'vllm'"),
        ("mycmd --model {model}", "does not say {port}"),
        ("mycmd '{model} {port}", "cannot be read as a command: No closing quotation"),
    ],
)
def test_unknown_engines(text, said, folder):
    with pytest.raises(UsageError, match=said):
        open_backend(find_model(str(folder)), Access(serving=Serving(text)))


def test_an_engine_needs_something_to_serve(folder):
    serving = Serving("vllm")
    for model, access in (
        ("gpt-4o", Access(serving=serving)),
        (str(folder), Access(("http://127.0.0.1:1/v1",), serving=serving)),
    ):
        with pytest.raises(UsageError, match="is served elsewhere; leave it out"):
            open_backend(find_model(model), access)


def test_one_that_is_not_installed(open_run, prompts, monkeypatch):
    monkeypatch.setattr(engines, "_program", lambda _: None)
    with pytest.raises(UsageError, match=r"no command 'vllm' .* needs: pip install vllm"):
        open_run(serving={"engine": "vllm"}).ask(prompts)


@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if engine.command])
def test_commands_listen_on_this_machine_only(name, folder, monkeypatch):
    """And on all GPUs where an engine can share them, with all images of a prompt."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    monkeypatch.setattr(engines, "_program", lambda name: f"/bin/{name}")
    server = engines.LocalServer(ENGINES[name], find_model(str(folder)), folder, Serving())
    words = server._command(8123)
    assert words[0].startswith("/bin/")
    assert "127.0.0.1" in words
    assert "8123" in words
    assert str(folder) in words
    assert not [word for word in words if "{" in word and "image" not in word]
    if name == "vllm":
        assert words[words.index("--tensor-parallel-size") + 1] == "4"
        assert json.loads(words[words.index("--limit-mm-per-prompt") + 1]) == {"image": 16}
        assert server.model_id == "tiny"
    if name == "transformers":
        assert server.model_id == str(folder)


@pytest.mark.parametrize(("heads", "gpus", "used"), [(32, 8, 8), (14, 8, 2), (28, 3, 2), (8, 0, 1)])
def test_gpus_share_a_models_heads_evenly(tmp_path, heads, gpus, used):
    assert tensor_parallel(model_folder(tmp_path / "m", heads=heads), gpus) == used


def test_what_suits(folder, monkeypatch):
    """Small: in process; with a GPU and vLLM: there; models.yaml and the user come first."""
    spec = find_model(str(folder))
    monkeypatch.setattr(engines, "has_local_extra", lambda: True)
    assert choose(spec, Serving(), folder).name == "in_process"
    monkeypatch.setattr(engines, "IN_PROCESS_BYTES", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose(spec, Serving(), folder).name == "transformers"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(engines, "_program", lambda _: "/bin/vllm")
    assert choose(spec, Serving(), folder).name == "vllm"
    assert choose(replace(spec, engine="lmdeploy"), Serving(), folder).name == "lmdeploy"
    assert choose(replace(spec, engine="lmdeploy"), Serving("sglang"), folder).name == "sglang"


def test_the_default_model_is_said_with_its_reason(monkeypatch):
    import iqa_checks.models as models

    monkeypatch.setattr(models, "has_local_extra", lambda: False)
    assert default_model() == ("observer", "the default without the extra local")
    monkeypatch.setattr(models, "has_local_extra", lambda: True)
    monkeypatch.setattr(models, "folder_in_the_box", lambda: Path("/x"))
    assert default_model() == ("tiny-llava", "the default with the extra local")


# --- Where weights are ---------------------------------------------------------------------------


def test_weights_in_the_hubs_cache(tmp_path, monkeypatch):
    """By branch or commit; nothing is fetched."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--org--name"
    snapshot = model_folder(cached / "snapshots" / "abc123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc123")
    spec = find_model("hub:org/name")
    assert folder_of(spec.repository, name=spec.name) == snapshot
    assert folder_of(spec.repository, "abc123", name=spec.name) == snapshot
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"lacks the weights model-2\.safetensors; fetch them"):
        folder_of(spec.repository, name=spec.name)


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    """One error, with the command that fetches them."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    spec = ModelSpec("qwen", "openai", "Qwen/Q", repository="Qwen/Q", revision="9f3")
    with pytest.raises(UsageError, match=r"hf download Qwen/Q --revision 9f3$"):
        open_backend(spec, Access())
    with pytest.raises(UsageError, match="expected hub:ORG/NAME"):
        find_model("hub:name")
    for name, said in (("./nothing", "no such folder"), (str(tmp_path), "no config.json")):
        with pytest.raises(UsageError, match=said):
            open_backend(find_model(name), Access())


# --- What a model is -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_same_files_are_the_same_model(tmp_path, folder):
    """In any folder; a card beside them says nothing about the answers, a template does."""
    other = model_folder(tmp_path / "elsewhere" / "copy")
    (other / "README.md").write_text("a card")
    (other / ".cache").mkdir()
    (other / ".cache" / "download.json").write_text("{}")
    assert weights_hash(folder) == weights_hash(other)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert weights_hash(folder) != weights_hash(other)


def test_other_weights_are_another_model(tmp_path, folder):
    other = model_folder(tmp_path / "other", content=b"weighty")
    assert weights_hash(folder) != weights_hash(other)
    before = weights_hash(folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same in an older form")
    assert weights_hash(folder) == before
    (folder / "modeling.py").write_text("code")
    assert weights_hash(folder) == before
    assert weights_hash(folder, with_code=True) != before


def test_large_files_are_read_once(folder, monkeypatch):
    """By size and time of change; in the hub's cache not at all: they are named by their hash."""
    hashed: list[Path] = []
    real = weights._hash_file
    monkeypatch.setattr(weights, "_hash_file", lambda p: hashed.append(p) or real(p))
    large = folder / "model.safetensors"
    large.write_bytes(b"x" * 2**20)
    first = weights_hash(folder)
    assert weights_hash(folder) == first
    assert len(hashed) == 1
    os.utime(large, ns=(1, 1))
    assert weights_hash(folder) == first
    assert len(hashed) == 2
    blob = folder.parent / "blobs" / hashlib.sha256(large.read_bytes()).hexdigest()
    blob.parent.mkdir()
    large.rename(blob)
    large.symlink_to(blob)
    assert weights_hash(folder) == first
    assert len(hashed) == 2


def test_replies_are_found_again_by_weights_and_engine(folder, tmp_path, monkeypatch):
    """In process and behind `transformers serve` it is one model; vLLM computes otherwise."""
    copy = model_folder(tmp_path / "copy")

    def fingerprint(where: Path, engine: str) -> str:
        return open_backend(find_model(str(where)), Access(serving=Serving(engine))).fingerprint

    assert fingerprint(folder, "transformers") == fingerprint(copy, "in_process")
    assert fingerprint(folder, "vllm") == fingerprint(copy, "vllm")
    assert fingerprint(folder, "vllm") != fingerprint(folder, "transformers")
    half = "vllm serve {model} --port {port} --dtype half"
    assert fingerprint(folder, half) != fingerprint(folder, "vllm")
    assert str(folder) not in fingerprint(folder, half)
    assert find_engine(half).name == "vllm"
