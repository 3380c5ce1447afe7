"""``models.yaml`` as records: every line is checked, and a mistake names file, model and key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from iqa_checks.errors import UsageError
from iqa_checks.models import PROVIDERS, ModelSpec
from iqa_checks.prompts import load_strategies
from iqa_checks.protocols import PROTOCOLS

KEYS = tuple(field.name for field in fields(ModelSpec) if field.name != "name")


def read_models(text: str, where: str) -> dict[str, ModelSpec]:
    """The models of a YAML text; ``where`` names its file in errors.

    Raises `UsageError` for a text that is no YAML, a key that is unknown, or a value that is not
    what the key takes.
    """
    import yaml

    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a mapping of names, got {type(table).__name__}")
    return {str(name): _spec(str(name), line, where) for name, line in table.items()}


def _spec(name: str, line: Any, where: str) -> ModelSpec:
    at = f"{where}: model {name!r}"
    if not name or any(c.isspace() or c in ":/" for c in name):
        raise UsageError(f"{at}: a name has no blanks, colons or slashes, which mean other things")
    if not isinstance(line, dict):
        raise UsageError(f"{at}: expected a mapping of {', '.join(KEYS)}")
    unknown = sorted(str(key) for key in line if key not in KEYS)
    if unknown:
        raise UsageError(f"{at}: unknown key {', '.join(unknown)}; known: {', '.join(KEYS)}")
    given = _with_defaults(line)
    for key, value in given.items():
        accepts, expected = _EXPECTED[key]
        if not accepts(value):
            raise UsageError(f"{at}: {key}: {value!r}; expected {expected}")
    if not given["model"]:
        raise UsageError(f"{at}: needs `model`, or the `repository` of its weights")
    for key in ("price_per_million", "best"):
        if key in given:
            given[key] = tuple(given[key])
    return ModelSpec(name, **given)


def _with_defaults(line: Mapping[str, Any]) -> dict[str, Any]:
    """Weights are asked for by the name of their repository, without a key."""
    repository = line.get("repository", "")
    own = {"model": repository, "api_key_env": ""} if repository else {"model": ""}
    return {"provider": "openai", **own, **line}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_price(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    return numbers and len(value) == 2 and all(v >= 0 for v in value)


def _is_system(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return value[0] in PROTOCOLS and value[1] in load_strategies()


def _is_parameters(value: Any) -> bool:
    named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return named and ("max_tokens" not in value or _is_count(value["max_tokens"]))


_TEXT = (_is_text, "a text")
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "provider": (lambda value: value in PROVIDERS, f"one of {', '.join(PROVIDERS)}"),
    "model": _TEXT,
    "parameters": (_is_parameters, "a mapping, with max_tokens a whole number above 0"),
    "api_key_env": _TEXT,
    "base_url": _TEXT,
    "note": _TEXT,
    "tokens_per_image": (_is_count, "a whole number above 0"),
    "price_per_million": (_is_price, "[prompt, reply], two numbers of US dollars"),
    "engine": _TEXT,
    "repository": _TEXT,
    "revision": (_is_text, "a text; quote a commit of digits alone"),
    "trust_remote_code": (lambda value: type(value) is bool, "true or false"),
    "images_per_prompt": (_is_count, "a whole number above 0; leave it out where it is unknown"),
    "best": (_is_system, "[protocol, strategy], as in [double, chain_of_thought]"),
}
