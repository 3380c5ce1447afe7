"""Small images, rated sets and askers that the tests share."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import PIL.Image
import pytest

from iqa_checks.replies import Reply
from iqa_checks.stimuli import Image, Stimulus, StimulusSet

pytest_plugins = ["pytester"]

hypothesis.settings.register_profile("quiet", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("quiet")

Worth = Callable[[str], float]


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Encoded pixels that depend on ``seed``: distinct seeds give distinct files."""

    def make(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def rated_set() -> Callable[..., StimulusSet]:
    """Stimuli that exist only as hashes; as many per reference, with their human scores."""

    def image(name: str) -> Image:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return Image(Path(f"{name}.png"), digest, "image/png", 24, 16)

    def make(
        mos: Sequence[float],
        *,
        references: Sequence[str] | None = None,
        n_exemplars: int = 4,
        scale: tuple[float, float] = (0.0, 100.0),
        **described: object,
    ) -> StimulusSet:
        def stimulus(name: str, score: float, reference: str | None) -> Stimulus:
            shown = None if reference is None else image(f"reference-{reference}")
            return Stimulus(image(name), float(score), None, shown)

        low, high = scale
        beside = None if references is None else "held-out"
        return StimulusSet(
            name=str(described.pop("name", "fake")),
            stimuli=tuple(
                stimulus(f"test-{k}", score, None if references is None else references[k])
                for k, score in enumerate(mos)
            ),
            scale=scale,
            exemplars=tuple(
                stimulus(f"exemplar-{k}", low + (high - low) * (k + 1) / 6, beside)
                for k in (2, 0, 3, 1)[:n_exemplars]
            ),
            **described,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def asker() -> Callable[..., object]:
    """An asker that answers with what ``say(worths, prompt)`` returns.

    ``worths`` are those of the stimuli of a trial, in presentation order: ``worth`` of the hashes
    of the images to judge.
    """

    class InMemory:
        def __init__(self, worth: Worth, say: Callable[[list[float], object], str]) -> None:
            self.worth, self.say, self.prompts = worth, say, []

        def ask(self, prompts: Sequence) -> list[Reply]:
            self.prompts += prompts
            return [Reply(self._reply(prompt)) for prompt in prompts]

        def _reply(self, prompt) -> str:
            shown = prompt.images[prompt.n_before :]
            each = len(shown) // prompt.n_stimuli  # a pair of photographs has two images
            judged = shown[each - 1 :: each]
            return self.say([self.worth(image.sha256) for image in judged], prompt)

    return InMemory
