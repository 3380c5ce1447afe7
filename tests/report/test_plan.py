"""What a run would ask: counts, and how much of its prompts a prefix cache has seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iqa_checks.cell import Cell, plan, run_cell
from iqa_checks.models import ModelSpec
from iqa_checks.prompts import Prompt
from iqa_checks.report.plan import PlanLine, line_of, plan_line, plan_table
from iqa_checks.stimuli import Image

SPEC = ModelSpec("m", "openai", "m", tokens_per_image=100, price_per_million=(2.0, 10.0))


@pytest.fixture
def images(rated_set) -> list[Image]:
    return [s.image for s in rated_set(range(6)).stimuli]


def prompt(text: str, *images: Image) -> Prompt:
    return Prompt(text, images, "rating", 1, 0, "x", 256)


def test_shared_is_what_repeats_the_start_of_an_earlier_prompt(images):
    """Text of 25 tokens, then images in order: what follows a difference is new."""
    text = "x" * 100
    a, b, c, d, *_ = images
    line = line_of("l", [prompt(text, a, b), prompt(text, a, c), prompt(text, d, b)], SPEC)
    assert line.prompt_tokens == 3 * 225
    assert line.shared == pytest.approx((125 + 25) / 675)
    other = line_of("l", [prompt(text, a, b), prompt("y" * 100, a, b)], SPEC)
    assert other.shared == 0


def test_tokens_and_cost(images):
    line = line_of("l", [prompt("x" * 400, images[0])], SPEC)
    assert (line.calls, line.images, line.prompt_tokens, line.tokens) == (1, 1, 200, 328)
    assert line.cost == pytest.approx((200 * 2 + 128 * 10) / 1e6)
    thinker = replace(SPEC, parameters={"max_tokens": 8000})
    assert line_of("l", [prompt("x" * 400, images[0])], thinker).tokens == 200 + 4000
    assert line_of("l", [], SPEC).shared == 0


def test_a_reference_in_front_of_its_test_images_is_shared(rated_set):
    """FR: the text is the same for all, the reference for those of one reference."""
    stimuli = rated_set(range(12), references=[f"r{k % 2}" for k in range(12)])
    text = len(plan(Cell(stimuli, "fr", "single"))[0].text) // 4
    line = plan_line(Cell(stimuli, "fr", "single"), SPEC)
    assert line.shared == pytest.approx((11 * text + 10 * 100) / line.prompt_tokens, abs=1e-6)
    assert line.system == "single standard"


@pytest.mark.parametrize("protocol", ["single", "double", "multiple"])
def test_repeats_are_planned(rated_set, asker, protocol):
    """What is planned is what is asked; a question asked again is shared to its last image."""
    stimuli = rated_set([10, 20, 30, 40, 50, 60])
    once = plan_line(Cell(stimuli, "nr", protocol), SPEC)
    thrice = plan_line(Cell(stimuli, "nr", protocol, repeats=3), SPEC)
    assert (thrice.calls, thrice.images) == (3 * once.calls, 3 * once.images)
    assert thrice.shared == pytest.approx((2 + once.shared) / 3)
    model = asker(lambda _: 1.0, lambda *_: "no")
    run_cell(Cell(stimuli, "nr", protocol, repeats=3), model)
    assert len(model.prompts) == thrice.calls


def test_the_table_sums_by_prompting_system_and_weighs_by_prompts():
    """A cell with long replies does not count more: caches hold prompts."""
    one = PlanLine("nr-single-standard-a", 10, 10, 9000, 1000, 0.5, None, "single standard")
    two = replace(one, cell="nr-single-standard-b", tokens=3500, prompt_tokens=3000, shared=0.1)
    three = replace(one, cell="nr-double-standard-a", system="double standard", shared=0.0)
    lines = plan_table([one, two, three])
    assert [line.split()[0] for line in lines] == [
        "cell", one.cell, two.cell, three.cell, "all", "all", "total",
    ]  # fmt: skip
    assert next(line for line in lines if "all single standard" in line).split()[-2] == "20%"
    assert lines[-1].split()[-2] == "16%"
    assert [line.split()[0] for line in plan_table([one])] == ["cell", one.cell, "total"]
