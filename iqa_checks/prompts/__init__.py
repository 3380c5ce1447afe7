"""From a trial to a prompt: text first, then the images, parts that repeat in front.

The wording lives in template files (``templates/STRATEGY/PROTOCOL_SCENARIO.txt``, Jinja2); this
module only fills them. Two parts are made here, because a reader of the prompt (the simulated
observer, a log) relies on them:

``image_key``
    "Images, in order: image 1 is the reference; image 2 is the test image." Roles never depend on
    the trial, so the text is the same for all trials of a cell and prefix caches hit it.
``example_answer``
    What an observer who agrees with people would answer for the exemplars.

To try another wording, write a folder of templates and a line in a YAML file like
``strategies.yaml`` (``--iqa-strategies FILE``); its name appears in ids, tables and requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from iqa_checks.errors import DesignError, ExemplarsAbsent, UsageError, known_names
from iqa_checks.protocols import ANSWERS, Answer, Preset, ProtocolName, Trial
from iqa_checks.stimuli import Image, Stimulus, StimulusSet

Scenario = Literal["fr", "nr", "difference"]
SCENARIOS: tuple[Scenario, ...] = ("fr", "nr", "difference")
HERE = Path(__file__).parent
LETTERS = "ABCDEFGHIJ"
N_EXEMPLARS: dict[ProtocolName, int] = {"single": 1, "double": 2, "multiple": 4}


@dataclass(frozen=True, slots=True)
class Strategy:
    """One line of ``strategies.yaml``. ``max_tokens`` bounds a reply, in tokens."""

    name: str
    templates: Path
    exemplars: bool
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question as a model gets it: ``text``, then ``images`` in order.

    ``template`` names the wording; ``repeat`` tells repetitions of one question apart.
    ``n_stimuli`` is the number of stimuli to judge (not of images), ``n_before`` the number of
    images that precede them (exemplars, reference); a pair to judge has two images.
    ``top_logprobs`` asks for the log-probabilities of so many alternatives a token; 0 for none.
    """

    text: str
    images: tuple[Image, ...]
    answer: Answer
    n_stimuli: int
    n_before: int
    template: str
    max_tokens: int
    repeat: int = 0
    images_per_stimulus: int = 1
    top_logprobs: int = 0


def load_strategies(extra: Path | None = None) -> dict[str, Strategy]:
    """The strategies in the box, and those of the YAML file ``extra``.

    Raises `UsageError` where a file or line is not as ``strategies.yaml`` is.
    """
    strategies = _read_strategies(HERE / "strategies.yaml")
    if extra is not None:
        strategies |= _read_strategies(extra)
    return strategies


def find_strategy(name: str, extra: Path | None = None) -> Strategy:
    """Look a strategy up by name; an unknown one lists the known."""
    strategies = load_strategies(extra)
    if name not in strategies:
        raise known_names("strategy", name, strategies)
    return strategies[name]


def build_prompt(
    trial: Trial,
    stimuli: StimulusSet,
    *,
    protocol: ProtocolName,
    strategy: Strategy,
    scenario: Scenario,
    preset: Preset = "sound",
) -> Prompt:
    """Fill the template of a prompting system for one trial.

    Exemplars state their true scores on 0..100; under `paper` the exemplar of a rating is said to
    have 50, the better one of a pair comes first and a list runs from worst to best, as in the
    released prompts.

    Raises `DesignError` when the strategy shows exemplars and the set has too few.
    """
    tests = [stimuli.stimuli[i] for i in trial.stimuli]
    exemplars = _exemplars(stimuli, protocol, len(tests), preset) if strategy.exemplars else ()
    lettered = protocol == "multiple"
    before = _parts(exemplars, scenario, "example", lettered)
    shown = [*before, *_parts(tests, scenario, "test", lettered)]
    scores = tuple(round(stimuli.quality_of(s)) for s in exemplars)
    text = _text(
        strategy.templates / f"{protocol}_{scenario}.txt",
        stimuli.attribute,
        len(tests),
        tuple(role for role, _ in shown),
        (50,) if scores and protocol == "single" and preset == "paper" else scores,
        protocol,
    )
    return Prompt(
        text,
        tuple(image for _, image in shown),
        ANSWERS[protocol],
        len(tests),
        len(before) + (scenario == "fr"),
        f"{strategy.name}/{protocol}_{scenario}",
        strategy.max_tokens,
        trial.repeat,
        2 if scenario == "difference" else 1,
    )


def _exemplars(
    stimuli: StimulusSet, protocol: ProtocolName, n_tests: int, preset: Preset
) -> tuple[Stimulus, ...]:
    """One of middling quality for a rating, the clearest pair, or as many as a list holds."""
    needed = n_tests if protocol == "multiple" else N_EXEMPLARS[protocol]
    held_out = stimuli.exemplars
    if len(held_out) < needed:
        raise ExemplarsAbsent(
            f"in-context prompts of the {protocol}-stimulus protocol show {needed} exemplars that "
            f"are not tested; {stimuli.name} holds out {len(held_out)}"
        )
    ordered = sorted(held_out, key=stimuli.quality_of)
    if protocol == "single":
        return (ordered[len(ordered) // 2],)
    chosen = [ordered[0], ordered[-1]] if protocol == "double" else list(held_out[:needed])
    if preset == "paper":
        return tuple(sorted(chosen, key=stimuli.quality_of, reverse=protocol == "double"))
    return tuple(s for s in held_out if s in chosen)  # in the held-out, random order


def _parts(
    stimuli: Sequence[Stimulus],
    scenario: Scenario,
    kind: Literal["example", "test"],
    lettered: bool,
) -> list[tuple[str, Image]]:
    """Role and image of everything that is shown, in order."""
    parts: list[tuple[str, Image]] = []
    if scenario == "fr" and stimuli:
        of = " of the example" if kind == "example" else ""
        parts.append((f"the reference{of}", _shared_reference(stimuli)))
    for k, stimulus in enumerate(stimuli):
        if scenario == "difference":
            pair = _label(f"{kind} pair", k, len(stimuli), lettered)
            parts.append((f"the first photograph of {pair}", _reference(stimulus)))
            parts.append((f"the second photograph of {pair}", stimulus.image))
        else:
            parts.append((_label(f"{kind} image", k, len(stimuli), lettered), stimulus.image))
    return parts


def _label(noun: str, k: int, n: int, lettered: bool) -> str:
    """Lists go by letters: numbers would be mistaken for those of the images."""
    if lettered:
        return f"{noun} {LETTERS[k]}"
    return f"the {noun}" if n == 1 else f"the {('first', 'second')[k]} {noun}"


def _shared_reference(stimuli: Sequence[Stimulus]) -> Image:
    references = {_reference(s).sha256: _reference(s) for s in stimuli}
    if len(references) > 1:
        paths = ", ".join(str(image.path) for image in references.values())
        raise DesignError(
            f"a full-reference prompt shows one reference, but its images have {len(references)} "
            f"({paths}); take exemplars of one reference"
        )
    return next(iter(references.values()))


def _reference(stimulus: Stimulus) -> Image:
    if stimulus.reference_image is None:
        raise DesignError(
            f"{stimulus.path} has no reference image; a full-reference cell needs one per stimulus"
        )
    return stimulus.reference_image


@cache
def _text(
    template: Path,
    attribute: str,
    n: int,
    roles: tuple[str, ...],
    scores: tuple[int, ...],
    protocol: ProtocolName,
) -> str:
    """The text of a prompt; cached, since all trials of a cell share it."""
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    key = "; ".join(f"image {k} is {role}" for k, role in enumerate(roles, start=1))
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        source = template.read_text(encoding="utf-8")
        return environment.from_string(source).render(
            **_wording(attribute),
            n=n,
            letters=LETTERS[:n],
            image_key=f"Images, in order: {key}.",
            scores=scores,
            example_answer=_example_answer(protocol, scores) if scores else "",
        )
    except UsageError:
        raise
    except Exception as error:  # a template runs a user's expressions: they may fail in any way
        raise UsageError(f"prompt template {template}: {_one_line(error)}") from None


def _wording(attribute: str) -> dict[str, str]:
    if attribute not in _attributes():
        raise known_names("attribute", attribute, _attributes())
    return _attributes()[attribute]


def _one_line(error: Exception) -> str:
    """What Jinja and PyYAML spread over several lines."""
    return " ".join(str(error).split())


def _example_answer(protocol: ProtocolName, scores: Sequence[int]) -> str:
    if protocol == "single":
        return str(scores[0])
    if protocol == "double":
        if scores[0] == scores[1]:
            return "comparable"
        return "first" if scores[0] > scores[1] else "second"
    levels = sorted(set(scores))
    return ", ".join(
        f"{letter}={levels.index(score)}" for letter, score in zip(LETTERS, scores, strict=False)
    )


@cache
def _attributes() -> dict[str, dict[str, str]]:
    table = _read_yaml(HERE / "attributes.yaml")
    return {name: {"discount": "", **entry} for name, entry in table.items()}


def _read_strategies(path: Path) -> dict[str, Strategy]:
    strategies = {}
    for name, line in _read_yaml(path).items():
        match line:
            case {"templates": str(folder)}:
                exemplars, max_tokens = line.get("exemplars", False), line.get("max_tokens", 256)
            case _:
                folder, exemplars, max_tokens = "", None, None
        if type(exemplars) is not bool or type(max_tokens) is not int or max_tokens < 1:
            raise UsageError(
                f"{path}: strategy {name!r} must read "
                "{templates: FOLDER, exemplars: true or false, max_tokens: N}"
            )
        strategies[str(name)] = Strategy(str(name), path.parent / folder, exemplars, max_tokens)
    return strategies


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {_one_line(error)}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: expected a mapping of names, got {type(table).__name__}")
    return table
