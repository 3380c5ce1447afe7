"""A small local model in the broker itself: no server, no port, and waiting prompts in batches.

For models that answer in less time than a server needs to unpack the request. Weights, chat
template, image processor, generation settings and float type are those that ``transformers serve``
would use, and the answers were measured to be the same; so both share the keys of their replies.
(Of a Qwen that server takes thoughts out of a reply and leaves special tokens in; this does not.)

Prompts that wait together are answered together where every input has the same shape, as those of
one cell mostly have: nothing is padded, since padding would change what a model computes. torch
and transformers are imported when the first prompt is asked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import io
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from iqa_checks.errors import (
    EndpointError,
    InfrastructureError,
    IqaChecksError,
    MissingExtra,
    RequestFailed,
    UsageError,
)
from iqa_checks.models import ModelSpec
from iqa_checks.parsing.soft import pack
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply, storable
from iqa_checks.stimuli import Image

MOST_TOGETHER = 32  # prompts in a batch
KEPT_IMAGES = 256  # decoded; half a megabyte each at 512 x 384


def can_take(name: str, value: Any) -> bool:
    """Whether a parameter of models.yaml has a meaning in process."""
    return name == "max_tokens" or (name == "temperature" and not value)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A prompt in the form of the model's inputs. Only those of one ``shape`` go together."""

    inputs: dict[str, Any]
    most_tokens: int
    top_logprobs: int
    shape: tuple[Any, ...]
    answered: concurrent.futures.Future[Reply]


class InProcessModel:
    """Backend for a model in this process; one thread of its own computes.

    Raises `UsageError` for parameters other than greedy decoding.
    """

    paid = False

    def __init__(self, spec: ModelSpec, folder: Path, fingerprint: str, *, trusted: bool) -> None:
        self.fingerprint = fingerprint
        self.n_batches = 0
        self._spec = spec
        self._folder = folder
        self._trusted = trusted
        self._model: Any = None
        self._processor: Any = None
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="iqa-model", daemon=True)
        self._loading = threading.Lock()
        self._preparing = threading.Lock()  # a fast tokenizer is not safe in several threads
        for name, value in spec.parameters.items():
            if not can_take(name, value):
                raise UsageError(
                    f"--model {spec.name}: in process a model answers with temperature 0 and no "
                    f"parameter but max_tokens, not {name}={value}; add --iqa-engine transformers"
                )

    async def start(self) -> None:
        await asyncio.to_thread(self._load)

    async def ask(self, prompt: Prompt) -> Reply:
        await self.start()
        waiting = await asyncio.to_thread(self._prepared, prompt)
        self._queue.put(waiting)
        return await asyncio.wrap_future(waiting.answered)

    async def close(self) -> None:
        self._queue.put(None)

    def _load(self) -> None:
        with self._loading:
            if self._model is not None:
                return
            try:
                import torch
                import transformers
            except ImportError:
                raise MissingExtra("transformers", "local", f"--model {self._spec.name}") from None
            options = {"trust_remote_code": self._trusted, "local_files_only": True}
            try:
                with _quiet(transformers):
                    self._processor = transformers.AutoProcessor.from_pretrained(
                        self._folder, **options
                    )
                    model = transformers.AutoModelForImageTextToText.from_pretrained(
                        self._folder, dtype="auto", **options
                    )
            except Exception as error:
                raise EndpointError(self._not_loaded(error)) from None
            self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._thread.start()

    def _not_loaded(self, error: Exception) -> str:
        said = " ".join(str(error).split())[:500]
        remedy = (
            f"read the .py files in {self._folder}, then add --iqa-trust-remote-code"
            if "trust_remote_code" in said
            else "is it a model of images and text? Another way: --iqa-engine"
        )
        return f"{self._folder} cannot be loaded ({type(error).__name__}: {said}); {remedy}"

    def _prepared(self, prompt: Prompt) -> _Waiting:
        """The prompt through chat template, tokenizer and image processor, as a server does it."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt.text}]
        parts += [{"type": "image", "image": _decoded(image)} for image in prompt.images]
        try:
            with self._preparing:
                inputs = self._processor.apply_chat_template(
                    [{"role": "user", "content": parts}],
                    add_generation_prompt=True,
                    return_tensors="pt",
                    return_dict=True,
                    tokenize=True,
                )
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise RequestFailed(
                f"{self._spec.name} cannot read a prompt of {len(prompt.images)} images "
                f"({type(error).__name__}: {said})"
            ) from None
        tensors = dict(inputs.items())
        room = self._room(tensors["input_ids"].shape[1])
        most = min(max(prompt.max_tokens, self._spec.parameters.get("max_tokens", 0)), room)
        shapes = tuple((name, tuple(t.shape), t.dtype) for name, t in sorted(tensors.items()))
        return _Waiting(
            tensors,
            most,
            prompt.top_logprobs,
            (most, prompt.top_logprobs, *shapes),
            concurrent.futures.Future(),
        )

    def _room(self, n_tokens: int) -> int:
        """Tokens left for the answer; `RequestFailed` where the prompt alone fills the context."""
        config = self._model.config
        inner = config.get_text_config() if hasattr(config, "get_text_config") else config
        context = getattr(inner, "max_position_embeddings", None) or 2**31
        if n_tokens >= context:
            raise RequestFailed(
                f"the prompt has {n_tokens} tokens, and {self._spec.name} a context of {context}; "
                "show it fewer or smaller images"
            )
        return int(context - n_tokens)

    def _work(self) -> None:
        """Answer what waits, batch by batch, until a None comes."""
        backlog: list[_Waiting] = []
        while True:
            while not self._queue.empty() or not backlog:
                waiting = self._queue.get()
                if waiting is None:
                    for left in backlog:
                        left.answered.cancel()
                    return
                backlog.append(waiting)
            first = backlog[0]
            batch = [w for w in backlog if w.shape == first.shape][:MOST_TOGETHER]
            backlog = [w for w in backlog if w not in batch]  # by identity
            self._answer([w for w in batch if w.answered.set_running_or_notify_cancel()])

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        try:
            replies = self._replies(batch)
        except Exception as error:
            for waiting in batch:
                waiting.answered.set_exception(self._failed(error, len(batch)))
            return
        for waiting, reply in zip(batch, replies, strict=True):
            waiting.answered.set_result(reply)

    def _failed(self, error: Exception, n: int) -> IqaChecksError:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if "out of memory" in said.lower():
            return EndpointError(f"{self._spec.name} ran out of memory with {n} prompts: {said}")
        return InfrastructureError(f"{self._spec.name} failed on {n} prompts: {said}")

    def _replies(self, batch: Sequence[_Waiting]) -> list[Reply]:
        import torch

        began = time.perf_counter()
        device = self._model.device
        inputs = {
            name: torch.cat([waiting.inputs[name] for waiting in batch]).to(device)
            for name in batch[0].inputs
        }
        top = batch[0].top_logprobs
        settings = copy.deepcopy(self._model.generation_config)
        settings.update(
            do_sample=False, temperature=None, top_p=None, top_k=None,
            max_new_tokens=batch[0].most_tokens,
            return_dict_in_generate=True, output_logits=top > 0,
        )  # fmt: skip
        with torch.inference_mode():
            made = self._model.generate(**inputs, generation_config=settings)
        self.n_batches += 1
        n_asked = inputs["input_ids"].shape[1]
        ends = _ends(settings)
        took_s = (time.perf_counter() - began) / len(batch)
        replies = []
        for k, row in enumerate(made.sequences):
            tokens = row[n_asked:].tolist()
            end = next((j + 1 for j, token in enumerate(tokens) if token in ends), None)
            steps = [step[k] for step in made.logits[:end]] if top else []
            replies.append(
                Reply(
                    storable(self._processor.decode(tokens[:end], skip_special_tokens=True)),
                    "length" if end is None else "stop",
                    self._folder.name,
                    n_asked,
                    len(tokens[:end]),
                    took_s,
                    time.time(),
                    logprobs=pack([self._odds(*s, top) for s in zip(tokens, steps, strict=False)]),
                )
            )
        return replies

    def _odds(self, token: int, logits: Any, top: int) -> dict[str, Any]:
        """A token of the reply and the likeliest in its place, as chat endpoints tell them."""
        likely = logits.float().log_softmax(-1)
        best = likely.topk(min(top, len(likely)))
        named = [
            {"token": self._processor.decode([k]), "logprob": p}
            for k, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        written = {"token": self._processor.decode([token]), "logprob": float(likely[token])}
        return {**written, "top_logprobs": named}


def _ends(settings: Any) -> set[int]:
    ids = settings.eos_token_id
    return set(ids) if isinstance(ids, list) else {ids}


@lru_cache(maxsize=KEPT_IMAGES)
def _decoded(image: Image) -> Any:
    """Pixels as a server decodes them; turned as EXIF says, then RGB."""
    import PIL.Image
    import PIL.ImageOps

    with PIL.Image.open(io.BytesIO(image.read())) as opened:
        turned = PIL.ImageOps.exif_transpose(opened)
        return turned.convert("RGB")


class _quiet:
    """No progress bars and no advice on standard error while weights load."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging
        self._verbosity = self._logging.get_verbosity()

    def __enter__(self) -> None:
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._verbosity)
        self._logging.enable_progress_bar()
