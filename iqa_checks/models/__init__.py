"""Every model behind one protocol: a prompt goes in, a reply comes out.

``--model`` takes a name of ``models.yaml``, ``openai:ID`` for any other model of an
OpenAI-compatible endpoint, weights at hand (``FOLDER``, ``hub:ORG/NAME``; see `engines`), or a
simulated observer with parameters (``observer:noise=5,lapse=0.1``). To add a model, add a line to
``models.yaml``; to add a provider, write a `Backend` in a file of its own and add it to
`PROVIDERS`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from iqa_checks.errors import UsageError, known_names
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply


class Backend(Protocol):
    """What the broker needs of a model.

    ``fingerprint`` says which model answers, whatever URL or port it is reached at; with the
    prompt and its parameters it makes the key of a request. ``paid`` models are announced before
    they are asked.
    """

    fingerprint: str
    paid: bool

    async def start(self) -> None:
        """Get ready for the first request: what takes long, such as loading a model.

        May be called again. Raises `EndpointError` or `UsageError`, which end the run.
        """
        ...

    async def ask(self, prompt: Prompt) -> Reply:
        """Answer one prompt.

        Raises `TryAgain` for what may pass, `RequestFailed` for a request that never will, and
        `EndpointError` for an endpoint that refuses all requests.
        """
        ...

    async def close(self) -> None: ...


class TryAgain(Exception):
    """A failure that may pass: rate limit, server error, reset, stall, malformed body.

    ``after_s`` is the wait that the endpoint asked for, in seconds; ``throttled`` says that it
    wants fewer requests at once.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, throttled: bool = False):
        super().__init__(reason)
        self.after_s = after_s
        self.throttled = throttled


@dataclass(frozen=True, slots=True)
class Serving:
    """How a local model is served where no base URL is given.

    ``engine`` is a name of `engines.ENGINES` or a command, '' for the one that suits;
    ``timeout_s`` what it may take to get ready, in seconds; ``logs`` the folder of its log.
    """

    engine: str = ""
    timeout_s: float = 600.0
    trust_remote_code: bool = False
    logs: Path = Path(".iqa/engines")


@dataclass(frozen=True, slots=True)
class Access:
    """How an endpoint is reached. No key depends on it, but for the engine of a local model."""

    base_urls: tuple[str, ...] = ()
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    serving: Serving = Serving()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by name, with the parameters that change its answers.

    Of the parameters, ``max_tokens`` is the least that a reply may take. ``price_per_million`` is
    what a million prompt and reply tokens cost, for estimates only. ``repository`` at ``revision``
    is served for the run, by ``engine`` or else by one that suits (see `engines`); empty for a
    model that somebody else serves. ``images_per_prompt`` is the most that it takes, None where
    unknown. ``best`` is the prompting system (protocol, strategy) that the paper found best for it.
    """

    name: str
    provider: str
    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    api_key_env: str = "OPENAI_API_KEY"
    base_url: str = ""
    note: str = ""
    tokens_per_image: int = 800
    price_per_million: tuple[float, float] | None = None
    engine: str = ""
    repository: str = ""
    revision: str = ""
    trust_remote_code: bool = False
    images_per_prompt: int | None = None
    best: tuple[str, str] | None = None


def find_model(text: str) -> ModelSpec:
    """Read ``--model``: a registry name, ``openai:ID``, weights, or a simulated observer.

    Raises `UsageError` for an unknown name (listing the known) or unreadable parameters.
    """
    name, _, rest = text.partition(":")
    if name == "openai":
        if not rest:
            raise UsageError("--model openai:ID needs the id of a model, as in openai:gpt-4o")
        return ModelSpec(text, "openai", rest, {"temperature": 0})
    if name in SIMULATED:
        return ModelSpec(text, name, name, _parameters(rest, text))
    if name == "hub":
        return _weights(text, _hub_name(rest))
    registry = load_models()
    if text in registry:
        return registry[text]
    if text == IN_THE_BOX:
        return _weights(text, str(folder_in_the_box()), f"{MODELS_IN_THE_BOX}/{text}")
    if Path(text).is_dir() or text.startswith((".", "/", "~")):
        return _weights(text, text)
    known = [*registry, *SIMULATED, IN_THE_BOX, "openai:ID", "hub:ORG/NAME", "FOLDER"]
    raise known_names("model", text, known)


@cache
def load_models() -> dict[str, ModelSpec]:
    """The models of ``models.yaml``, by name."""
    from iqa_checks.models.registry import read_models

    text = resources.files(__package__).joinpath("models.yaml").read_text(encoding="utf-8")
    return read_models(text, "models.yaml")


def open_backend(spec: ModelSpec, access: Access) -> Backend:
    """Make the backend of a model; nothing is sent and no weights are loaded yet."""
    if is_served_here(spec, access):
        from iqa_checks.models.engines import open_local

        return open_local(spec, access)
    check_engine(spec, access)
    return PROVIDERS[spec.provider](spec, access)


def check_engine(spec: ModelSpec, access: Access) -> None:
    """Raise `UsageError` for ``--iqa-engine`` where it is unknown or has nothing to serve."""
    if not access.serving.engine:
        return
    from iqa_checks.models.engines import find_engine

    find_engine(access.serving.engine)
    if not is_served_here(spec, access):
        raise UsageError(
            f"--iqa-engine {access.serving.engine}: --model {spec.name} is served elsewhere; leave "
            "it out, or name weights: --model FOLDER or hub:ORG/NAME, without --iqa-base-url"
        )


def is_served_here(spec: ModelSpec, access: Access) -> bool:
    """Whether this run has to start the model itself: it knows the weights and no base URL."""
    return bool(spec.repository) and not access.base_urls


def folder_in_the_box() -> Path:
    """The model that comes with the project's repository: in its checkout, or the working folder.

    Raises `UsageError` where there is none, as in an installation from a wheel.
    """
    for root in (Path(__file__).parents[2], Path.cwd()):
        if (root / MODELS_IN_THE_BOX / IN_THE_BOX / "config.json").is_file():
            return root / MODELS_IN_THE_BOX / IN_THE_BOX
    raise UsageError(
        f"--model {IN_THE_BOX}: its weights are in the project's repository, in "
        f"{MODELS_IN_THE_BOX}/{IN_THE_BOX}, and not in {Path.cwd()}; give their folder: "
        "--model FOLDER"
    )


def default_model() -> tuple[str, str]:
    """The model to ask when none is named, and why. Nothing heavy is imported."""
    if not has_local_extra():
        return "observer", "the default without the extra local"
    try:
        folder_in_the_box()
    except UsageError:
        return "observer", "the default outside the project's repository"
    return IN_THE_BOX, "the default with the extra local"


def has_local_extra() -> bool:
    """Whether the extra `local` is installed; nothing is imported to find out."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "timm"))


def request_of(prompt: Prompt, fingerprint: str) -> dict[str, Any]:
    """The frozen request: everything that decides an answer, with images by hash."""
    return {
        "model": fingerprint,
        "template": prompt.template,
        "text_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
        "images": [[image.sha256, image.mime] for image in prompt.images],
        "max_tokens": prompt.max_tokens,
        "repeat": prompt.repeat,
        **({"top_logprobs": prompt.top_logprobs} if prompt.top_logprobs else {}),
    }


def key_of(request: dict[str, Any]) -> str:
    """SHA-256 of a frozen request's canonical JSON.

    The template's name is left out: the same words about the same images are the same question.
    """
    frozen = {name: value for name, value in request.items() if name != "template"}
    return hashlib.sha256(
        json.dumps(frozen, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _weights(name: str, repository: str, model: str = "") -> ModelSpec:
    """Weights at hand, as they are named to a server that somebody else has started."""
    model = model or repository
    return ModelSpec(name, "openai", model, {"temperature": 0}, repository=repository)


def _hub_name(text: str) -> str:
    """ORG/NAME, as the hub writes it."""
    organisation, _, name = text.partition("/")
    if not (organisation and name) or "/" in name:
        raise UsageError(f"--model hub:{text}: expected hub:ORG/NAME, as the hub names it")
    return text


def _parameters(text: str, spec: str) -> dict[str, Any]:
    """Read ``noise=5,lapse=0.1``."""
    parameters: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        try:
            parameters[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(
                f"--model {spec}: {item!r} must read NAME=NUMBER, as in observer:noise=5,lapse=0.1"
            )
    return parameters


def _open_openai(spec: ModelSpec, access: Access) -> Backend:
    from iqa_checks.models.openai_chat import OpenAIChat

    return OpenAIChat(spec, access)


def _open_observer(spec: ModelSpec, access: Access) -> Backend:
    from iqa_checks.models.observer import InProcessObserver

    return InProcessObserver(spec)


IN_THE_BOX, MODELS_IN_THE_BOX = "tiny-llava", "fixtures/models"
SIMULATED = ("observer", "random")
PROVIDERS: dict[str, Callable[[ModelSpec, Access], Backend]] = {
    "openai": _open_openai,
    "observer": _open_observer,
    "random": _open_observer,
}
