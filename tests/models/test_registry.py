"""models.yaml: what it ships, and what is said about a line that is wrong."""

from __future__ import annotations

import re

import pytest

from iqa_checks.errors import UsageError
from iqa_checks.models import load_models
from iqa_checks.models.engines import find_engine
from iqa_checks.models.registry import KEYS, read_models
from iqa_checks.prompts import load_strategies
from iqa_checks.protocols import PROTOCOLS

MODELS = load_models()
PAPER = ("gpt4v", "llava-v1.6", "internlm-xc2-vl", "mplug-owl2", "q-instruct")
FAMILIES = ("qwen2.5-vl", "qwen3-vl", "internvl3-", "internvl3.5", "gemma3", "smolvlm2",
            "llava-onevision", "gpt-", "gemini-")  # fmt: skip


# --- the shipped file ---------------------------------------------------------------------------


def test_the_papers_five_and_the_families_of_today_are_there():
    assert set(PAPER) <= set(MODELS)
    for family in FAMILIES:
        assert any(name.startswith(family) for name in MODELS), family


@pytest.mark.parametrize("spec", MODELS.values(), ids=str)
def test_every_line_can_be_used(spec):
    assert spec.parameters["temperature"] == 0
    assert spec.provider == "openai"
    if spec.engine:
        find_engine(spec.engine)
        assert spec.repository
    if spec.repository:
        assert spec.model == spec.repository
        assert (spec.api_key_env, spec.base_url) == ("", "")
        assert spec.revision == "main" or re.fullmatch(r"[0-9a-f]{40}", spec.revision)
        assert re.search(r"not (?:yet run|tried)|^As ", spec.note, re.IGNORECASE)
    if spec.price_per_million:
        assert len(spec.price_per_million) == 2
    if spec.best:
        assert spec.best[0] in PROTOCOLS
        assert spec.best[1] in load_strategies()


def test_a_branch_is_said_to_move():
    """A commit pins what is measured; where none is known, the note says so."""
    for spec in MODELS.values():
        if spec.revision == "main":
            assert re.search(r"moves|Not tried", spec.note), spec.name


def test_the_retired_model_says_who_answers_for_it():
    spec = MODELS["gpt4v"]
    assert spec.model == "gpt-4o"
    assert "retired" in spec.note
    assert spec.best == ("double", "chain_of_thought")


def test_weights_that_bring_code_say_so():
    for name in ("internlm-xc2-vl", "mplug-owl2", "q-instruct"):
        assert MODELS[name].trust_remote_code
        assert MODELS[name].engine


# --- lines that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "x.yaml is no YAML"),
        ("- a", "x.yaml: expected a mapping of names, got list"),
        ("a: 3", "x.yaml: model 'a': expected a mapping of provider"),
        ("a b: {model: m}", "model 'a b': a name has no blanks"),
        ("openai:m: {model: m}", "model 'openai:m': a name has no blanks, colons"),
        ("a: {model: m, modle: 3, price: 1}", "unknown key modle, price; known: provider, model"),
        ("a: {}", "model 'a': needs `model`, or the `repository`"),
        ("a: {model: 3}", "model: 3; expected a text"),
        ("a: {model: m, provider: cohere}", "provider: 'cohere'; expected one of openai"),
        ("a: {model: m, parameters: [1]}", "parameters: [1]; expected a mapping"),
        ("a: {model: m, parameters: {max_tokens: 0}}", "max_tokens a whole number above 0"),
        ("a: {model: m, images_per_prompt: 0}", "images_per_prompt: 0; expected a whole number"),
        ("a: {model: m, images_per_prompt: true}", "images_per_prompt: True; expected"),
        ("a: {model: m, tokens_per_image: '9'}", "tokens_per_image: '9'; expected"),
        ("a: {model: m, price_per_million: 3}", "price_per_million: 3; expected [prompt, reply]"),
        ("a: {model: m, price_per_million: [1, -2]}", "price_per_million: [1, -2]; expected"),
        ("a: {model: m, best: [double, guess]}", "best: ['double', 'guess']; expected [protocol"),
        ("a: {model: m, best: [dual, standard]}", "best: ['dual', 'standard']; expected"),
        ("a: {repository: o/n, revision: 12345678}", "revision: 12345678; expected a text; quote"),
        ("a: {model: m, trust_remote_code: 'yes'}", "trust_remote_code: 'yes'; expected true"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_model_key_and_what_was_expected(text, said):
    with pytest.raises(UsageError) as caught:
        read_models(text, "x.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_become_tuples_and_weights_need_no_key():
    found = read_models(
        "a: {repository: o/n, best: [double, standard], price_per_million: [1, 2]}", "x.yaml"
    )["a"]
    assert (found.best, found.price_per_million) == (("double", "standard"), (1, 2))
    assert (found.provider, found.model, found.api_key_env) == ("openai", "o/n", "")


def test_every_field_can_be_written():
    assert "name" not in KEYS
    assert {"engine", "repository", "revision", "images_per_prompt", "best"} <= set(KEYS)
