"""Local models: an inference server for the run, started at the first question and ended with it.

    --model FOLDER | hub:ORG/NAME | a name of models.yaml with a `repository`
    --iqa-engine vllm | transformers | sglang | lmdeploy | in_process | "COMMAND {model} {port}"

The broker's process starts one server, whatever the number of workers, waits until it answers, and
asks it by the same chat protocol as a cloud endpoint (`openai_chat`). It listens on a free port of
127.0.0.1, writes into a log file that every error names, gets no key from the environment and
cannot reach the hub. It ends with the run, also after Ctrl-C, and when the controller is killed
(`keeper`). A small model runs in the broker itself (`in_process`).

To add an engine, add a line to `ENGINES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from iqa_checks.errors import (
    EndpointError,
    InfrastructureError,
    MissingExtra,
    UsageError,
    known_names,
)
from iqa_checks.models import Access, Backend, ModelSpec, Serving, TryAgain, has_local_extra
from iqa_checks.models.in_process import InProcessModel, can_take
from iqa_checks.models.openai_chat import OpenAIChat
from iqa_checks.models.weights import folder_of, read_config, weight_bytes, weights_hash
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply

HOST = "127.0.0.1"
IN_PROCESS = "in_process"
IN_PROCESS_BYTES = 400e6  # weights of 200 million parameters at two bytes each
MOST_IMAGES = 16  # of our own prompts: lists of four pairs of photographs, with as many exemplars
STOP_S = 15.0  # more than the keeper's grace
TAIL_LINES = 8
_KEEPER = Path(__file__).with_name("keeper.py")
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Engine:
    """How an inference server is started and asked whether it is ready.

    ``command`` is split as a shell does it, then {model} (the folder), {name}, {port}, {gpus} and
    {images} (the most per prompt) are filled in. A server that takes {name} is asked for the model
    by it, any other by the folder. ``trust`` is its option to run code that comes with weights.
    """

    name: str
    command: str
    needs: str
    health: str = "/health"
    trust: str = "--trust-remote-code"

    @property
    def family(self) -> str:
        """What of an engine decides answers: `in_process` and `transformers` compute the same."""
        if ENGINES.get(self.name) != self:
            return self.command  # of the user's own: any of its options may matter
        return "transformers" if self.name == IN_PROCESS else self.name

    def words(self, filled: dict[str, str], *, trusted: bool) -> list[str]:
        """The command as a list of words."""
        words = shlex.split(self.command)
        for name, value in filled.items():
            words = [word.replace(f"{{{name}}}", value) for word in words]
        return [*words, self.trust] if trusted and self.trust else words


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "vllm",
            f"vllm serve {{model}} --served-model-name {{name}} --host {HOST} --port {{port}} "
            "--tensor-parallel-size {gpus} --enable-prefix-caching "
            "--limit-mm-per-prompt '{\"image\": {images}}'",
            "pip install vllm, and a CUDA GPU",
        ),
        Engine(
            "transformers",
            f"transformers serve {{model}} --host {HOST} --port {{port}}",
            "pip install 'iqa_checks[local]'",
        ),
        Engine(
            "sglang",
            "python -m sglang.launch_server --model-path {model} --served-model-name {name} "
            f"--host {HOST} --port {{port}} --tp-size {{gpus}}",
            "pip install sglang, and a CUDA GPU",
        ),
        Engine(
            "lmdeploy",
            "lmdeploy serve api_server {model} --model-name {name} "
            f"--server-name {HOST} --server-port {{port}} --tp {{gpus}}",
            "pip install lmdeploy, and a CUDA GPU",
            trust="",  # it always runs the code that comes with weights
        ),
        Engine(IN_PROCESS, "", "pip install 'iqa_checks[local]'"),
    )
}


def open_local(spec: ModelSpec, access: Access) -> Backend:
    """The backend of a model whose weights are at hand; they are hashed, and not loaded yet.

    Raises `UsageError` where weights are missing, the engine is unknown or the model brings code.
    """
    serving = access.serving
    check_trust(spec, serving)
    folder = folder_of(spec.repository, spec.revision, name=spec.name)
    engine = choose(spec, serving, folder)
    digest = weights_hash(folder, with_code=serving.trust_remote_code)
    parts = [f"weights:{digest}", engine.family, spec.parameters]
    fingerprint = json.dumps(parts, sort_keys=True)
    if engine.name == IN_PROCESS:
        return InProcessModel(spec, folder, fingerprint, trusted=serving.trust_remote_code)
    return ServedModel(spec, access, LocalServer(engine, spec, folder, serving), fingerprint)


def check_trust(spec: ModelSpec, serving: Serving) -> None:
    """Code that comes with weights runs only where the user says so; else a `UsageError`."""
    if spec.trust_remote_code and not serving.trust_remote_code:
        raise UsageError(
            f"--model {spec.name} runs code that comes with its weights: read the .py files of "
            f"{spec.repository}, then add --iqa-trust-remote-code"
        )


def find_engine(text: str) -> Engine:
    """Read ``--iqa-engine``: a name of `ENGINES`, or a command with {model} and {port}.

    Raises `UsageError` for an unknown name or a command that says no port.
    """
    if text in ENGINES:
        return ENGINES[text]
    if " " not in text and "{" not in text:
        raise known_names("engine", text, [*ENGINES, '"COMMAND {model} {port}"'])
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--iqa-engine {text!r} cannot be read as a command: {error}") from None
    lacks = [part for part in ("{model}", "{port}") if part not in text]
    if lacks:
        raise UsageError(
            f"--iqa-engine {text!r} does not say {' and '.join(lacks)}; write the command of a "
            'server of chat completions, as in "mycmd --model {model} --port {port}"'
        )
    name = re.sub(r"[^\w.-]+", "-", Path(words[0]).name)
    return Engine(name, text, f"install {words[0]}")


def choose(spec: ModelSpec, serving: Serving, folder: Path) -> Engine:
    """The engine that was named, by the user or by models.yaml; else the one that suits best.

    A small model runs in process, any other in vLLM where there is a GPU and vLLM, else in
    ``transformers serve``.
    """
    named = serving.engine or spec.engine
    if named:
        return find_engine(named)
    plain = all(can_take(name, value) for name, value in spec.parameters.items())
    if plain and weight_bytes(folder) < IN_PROCESS_BYTES and has_local_extra():
        return ENGINES[IN_PROCESS]
    return ENGINES["vllm" if n_gpus() and _program("vllm") else "transformers"]


def n_gpus() -> int:
    """How many CUDA devices a server would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def tensor_parallel(folder: Path, gpus: int) -> int:
    """The most GPUs that can share a model: a power of two that divides its attention heads."""
    config = read_config(folder)
    inner = next((config[k] for k in ("text_config", "llm_config") if k in config), config)
    heads = inner.get("num_attention_heads") or config.get("num_attention_heads") or 1
    shares = [n for n in (1, 2, 4, 8, 16) if n <= gpus and heads % n == 0]
    return max(shares, default=1)


class LocalServer:
    """One server process. ``url`` is its base URL once it is ready; ``log`` its output's file."""

    def __init__(self, engine: Engine, spec: ModelSpec, folder: Path, serving: Serving) -> None:
        self.engine = engine
        self.url = ""
        last = spec.name.rstrip("/").rpartition("/")[2]
        self._name = re.sub(r"[^\w.-]+", "-", last).strip("-.") or folder.name
        self.log = serving.logs / f"{self._name}.log"
        self._spec = spec
        self._folder = folder
        self._serving = serving
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    @property
    def model_id(self) -> str:
        """What the server calls the model."""
        return self._name if "{name}" in self.engine.command else str(self._folder)

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it and wait until it answers: seconds to minutes.

        Raises `EndpointError`, with the end of the log, for a server that ends or takes longer
        than the time limit, and `UsageError` for one that is not installed.
        """
        port = free_port()
        command = self._command(port)
        self._launch(command)
        deadline = time.monotonic() + self._serving.timeout_s
        health = f"http://{HOST}:{port}{self.engine.health}"
        pause = 0.05
        while not (_answers(health) and not self.ended):
            if self.ended:
                raise EndpointError(self.obituary("before it was ready"))
            if time.monotonic() > deadline:
                self.stop()
                limit = f"{self._serving.timeout_s:g} s (--iqa-engine-timeout)"
                raise EndpointError(self._told(f"was not ready within {limit}"))
            if self._stopped.wait(pause):
                raise InfrastructureError("the run was ended while its engine was starting")
            pause = min(0.5, pause * 1.3)
        self.url = f"http://{HOST}:{port}/v1"

    def stop(self) -> None:
        """End the server and everything that it has started. May be called several times."""
        self._stopped.set()
        with self._lock:
            process = self._process
            if process is None or process.stdin is None:
                return
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def obituary(self, when: str) -> str:
        """What to tell of a server that has ended."""
        code = self._process.poll() if self._process else None
        said = self._told(f"ended {when} (exit status {code})")
        if "trust_remote_code" in said and not self._serving.trust_remote_code:
            said += (
                f"\nThe model brings code of its own: read the .py files in {self._folder}, then "
                "add --iqa-trust-remote-code"
            )
        return said

    def _told(self, what: str) -> str:
        end = "\n".join(f"    {line}" for line in last_lines(self.log))
        return f"engine {self.engine.name} for {self._spec.name} {what}; log {self.log}\n{end}"

    def _command(self, port: int) -> list[str]:
        if self.engine.name == "transformers" and "@" in str(self._folder):
            raise UsageError(
                f"{self._folder}: transformers serve takes what follows @ for a revision; move "
                "the folder, or name another --iqa-engine"
            )
        filled = {
            "model": str(self._folder),
            "name": self._name,
            "port": str(port),
            "images": str(self._spec.images_per_prompt or MOST_IMAGES),
        }
        if "{gpus}" in self.engine.command:
            filled["gpus"] = str(tensor_parallel(self._folder, n_gpus()))
        words = self.engine.words(filled, trusted=self._serving.trust_remote_code)
        program = _program(words[0])
        if program is None and self.engine.name == "transformers":
            raise MissingExtra("transformers", "local", f"--model {self._spec.name}")
        if program is None:
            raise UsageError(
                f"--iqa-engine {self.engine.name}: no command {words[0]!r} beside "
                f"{sys.executable} or on PATH; it needs: {self.engine.needs}. Or let somebody "
                "else serve the model: --iqa-base-url URL"
            )
        return [program, *words[1:]]

    def _launch(self, command: list[str]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text(f"$ {shlex.join(command)}\n", encoding="utf-8")
        with self._lock, self.log.open("ab") as log:
            if self._stopped.is_set():
                return
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_KEEPER), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )


class ServedModel:
    """Backend for a model in a server of its own, started by `start`."""

    paid = False

    def __init__(
        self, spec: ModelSpec, access: Access, server: LocalServer, fingerprint: str
    ) -> None:
        self.fingerprint = fingerprint
        self.server = server
        self._spec = spec
        self._access = access
        self._chat: OpenAIChat | None = None

    async def start(self) -> None:
        if self._chat is not None:
            return
        await asyncio.to_thread(self.server.start)
        # No key of the environment goes to a server that may log what it is sent.
        spec = replace(self._spec, model=self.server.model_id, api_key_env="")
        access = replace(self._access, base_urls=(self.server.url,), api_key_env="")
        self._chat = OpenAIChat(spec, access)

    async def ask(self, prompt: Prompt) -> Reply:
        await self.start()
        assert self._chat is not None
        try:
            return await self._chat.ask(prompt)
        except TryAgain as error:
            if self.server.ended:
                raise EndpointError(self.server.obituary("while it was asked")) from None
            told = f"{error}; engine log {self.server.log}"
            raise TryAgain(told, after_s=error.after_s, throttled=error.throttled) from None

    async def close(self) -> None:
        if self._chat is not None:
            await self._chat.close()
        await asyncio.to_thread(self.server.stop)


def environment() -> dict[str, str]:
    """The environment of a server: without keys, since servers log theirs, and off the network."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    return {**kept, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return int(unused.getsockname()[1])


def last_lines(log: Path, n: int = TAIL_LINES) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2**14))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip()[:300] for line in text.splitlines() if line.strip()][-n:]


def _program(name: str) -> str | None:
    """A command of the running environment, activated or not, else of PATH."""
    if name == "python":
        return sys.executable
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def _answers(url: str) -> bool:
    """Whether a server says that it is ready; a proxy of the environment is not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(200 <= response.status < 300)
    except Exception:  # whatever a server sends that is not up yet
        return False


def engine_line(spec: ModelSpec, serving: Serving) -> str:
    """Who serves a local model in this run, and where its log goes; for the run's header.

    Does not say which where the weights are not at hand: the run itself tells what to do.
    """
    try:
        folder = folder_of(spec.repository, spec.revision, name=spec.name)
        engine = choose(spec, serving, folder)
    except UsageError:
        return "served for the run"
    if engine.name == IN_PROCESS:
        return "in process"
    return f"engine {engine.name}, log {LocalServer(engine, spec, folder, serving).log}"
