"""Prompts: wording, order of the images, exemplars, strategies of one's own, faults in them."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from iqa_checks.errors import DesignError, UsageError
from iqa_checks.models.observer import read_task
from iqa_checks.prompts import (
    SCENARIOS,
    Strategy,
    build_prompt,
    find_strategy,
    load_strategies,
)
from iqa_checks.protocols import ANSWERS, PROTOCOLS, Trial
from iqa_checks.stimuli import ATTRIBUTES

STRATEGIES = ("standard", "in_context", "chain_of_thought")
CELLS = list(itertools.product(PROTOCOLS, STRATEGIES, SCENARIOS))
FORMS = {"single": "Score: ", "double": "Answer: ", "multiple": "Ranks: "}
SHOWN = {"single": 1, "double": 2, "multiple": 4}


@pytest.fixture
def stimuli(rated_set):
    """Eight stimuli of one reference, four exemplars of another."""
    return rated_set(range(10, 90, 10), references=["r"] * 8)


@pytest.fixture
def build(stimuli):
    """The prompt of a trial; of the first stimuli where none is given."""

    def make(protocol, strategy, scenario, trial=None, *, of=stimuli, preset="sound", extra=None):
        trial = trial or Trial(tuple(range(SHOWN[protocol])))
        return build_prompt(
            trial, of, protocol=protocol, strategy=find_strategy(strategy, extra),
            scenario=scenario, preset=preset,
        )  # fmt: skip

    return make


@pytest.mark.parametrize(("protocol", "strategy", "scenario"), CELLS)
def test_every_template_says_what_to_judge_and_how_to_answer(build, protocol, strategy, scenario):
    """The form of the answer once, the image key last, nothing left unfilled."""
    prompt = build(protocol, strategy, scenario)
    lines = prompt.text.splitlines()
    assert sum(line.startswith(FORMS[protocol]) for line in lines) == 1
    assert lines[-1].startswith("Images, in order: image 1 is ")
    assert len(re.findall(r"image \d+ is", lines[-1])) == len(prompt.images)
    assert not re.search(r"[{}]|  |None", prompt.text)
    assert ("First describe" in prompt.text) == (strategy == "chain_of_thought")
    assert ("example" in prompt.text) == (strategy == "in_context")
    assert prompt.template == f"{strategy}/{protocol}_{scenario}"
    assert (prompt.answer, prompt.n_stimuli) == (ANSWERS[protocol], SHOWN[protocol])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_has_its_own_wording(build, stimuli, attribute):
    """All 27 templates tell what to look for; what must not count is told where it matters."""
    for cell in CELLS:
        mine = build(*cell, of=replace(stimuli, attribute=attribute)).text
        general = build(*cell, of=replace(stimuli, attribute="general")).text
        assert "Pay attention to " in mine
        assert (mine == general) == (attribute == "general")
        told = "must not" in mine or "fully similar" in mine
        assert told == (attribute not in ("general", "structure"))


def test_unknown_attribute_lists_the_known(build, stimuli):
    """A set made in Python may name anything."""
    with pytest.raises(UsageError, match=r"unknown attribute 'textures'\. Did you mean 'texture'"):
        build("single", "standard", "nr", of=replace(stimuli, attribute="textures"))


@pytest.mark.parametrize(("protocol", "strategy", "scenario"), CELLS)
def test_text_is_the_same_for_all_trials_of_a_cell(build, protocol, strategy, scenario):
    """So prefix caches hit it: only the last images differ."""
    n = SHOWN[protocol]
    prompts = [
        build(protocol, strategy, scenario, Trial(tuple(range(k, k + n)), repeat=k))
        for k in (0, 3, 4)
    ]
    assert len({p.text for p in prompts}) == 1
    assert len({p.images[: p.n_before] for p in prompts}) == 1
    assert len({p.images for p in prompts}) == 3
    assert [p.repeat for p in prompts] == [0, 3, 4]


@pytest.mark.parametrize(("protocol", "strategy", "scenario"), CELLS)
def test_images_stand_exemplars_reference_tests(build, stimuli, protocol, strategy, scenario):
    """Exemplars (their reference first), the reference, the tests in the order of the trial."""
    trial = Trial(tuple(reversed(range(SHOWN[protocol]))))
    prompt = build(protocol, strategy, scenario, trial)
    tests = [stimuli.stimuli[i] for i in trial.stimuli]
    n_exemplars = SHOWN[protocol] if strategy == "in_context" else 0
    each = 2 if scenario == "difference" else 1
    expected = [image for s in tests for image in ([s.reference_image] * (each - 1) + [s.image])]
    assert list(prompt.images[prompt.n_before :]) == expected
    n_references = (1 + (n_exemplars > 0)) if scenario == "fr" else 0
    assert prompt.n_before == n_exemplars * each + n_references
    if scenario == "fr":
        assert prompt.images[prompt.n_before - 1] == stimuli.stimuli[0].reference_image
        if n_exemplars:
            assert prompt.images[0] == stimuli.exemplars[0].reference_image
    exemplars = {s.image for s in stimuli.exemplars}
    assert sum(image in exemplars for image in prompt.images) == n_exemplars
    assert not exemplars & set(prompt.images[prompt.n_before :])


@pytest.mark.parametrize(("protocol", "strategy", "scenario"), CELLS)
def test_observer_understands_every_template(build, protocol, strategy, scenario):
    """Reading the text alone, it finds the tests among the images, with their references."""
    prompt = build(protocol, strategy, scenario)
    task = read_task(prompt.text, len(prompt.images))
    assert task is not None
    assert task.answer == prompt.answer
    assert task.color == (scenario == "difference")
    first = prompt.n_before
    expected = {
        "nr": [(first + k,) for k in range(prompt.n_stimuli)],
        "fr": [(first - 1, first + k) for k in range(prompt.n_stimuli)],
        "difference": [(first + 2 * k, first + 2 * k + 1) for k in range(prompt.n_stimuli)],
    }[scenario]
    assert list(task.stimuli) == expected


def test_roles_of_a_full_reference_list(build):
    """The key in full, once: letters for a list, so that they are not mistaken for positions."""
    key = build("multiple", "in_context", "fr").text.splitlines()[-1]
    assert key == (
        "Images, in order: image 1 is the reference of the example; image 2 is example image A; "
        "image 3 is example image B; image 4 is example image C; image 5 is example image D; "
        "image 6 is the reference; image 7 is test image A; image 8 is test image B; "
        "image 9 is test image C; image 10 is test image D."
    )


def stated(text: str) -> list[int]:
    """The scores that a prompt states for its exemplars."""
    sentence = re.search(r"You are shown an example first:.*?(?:, so|out of 100\.)", text)[0]
    return [int(k) for k in re.findall(r"\b\d+\b", sentence) if k not in ("100", "4", "3")]


def test_exemplars_state_their_true_scores(build, stimuli):
    """In the order in which they are shown, on 0..100, with the answer people would give."""
    true = [round(stimuli.quality_of(s)) for s in stimuli.exemplars]  # 50, 17, 67, 33
    listed = build("multiple", "in_context", "fr").text
    assert stated(listed) == true == [50, 17, 67, 33]
    assert "the ranks for the example are: A=2, B=0, C=3, D=1" in listed
    paired = build("double", "in_context", "fr")
    assert stated(paired.text) == [17, 67]
    assert paired.images[1:3] == (stimuli.exemplars[1].image, stimuli.exemplars[2].image)
    assert "the answer for the example is: second" in paired.text
    alone = build("single", "in_context", "fr")
    assert stated(alone.text) == [50]
    assert alone.images[1] == stimuli.exemplars[0].image


def test_exemplars_of_a_dmos_set_state_quality(build, stimuli):
    """Where low scores are good the stated ones are turned round, and so is the answer."""
    turned = build("double", "in_context", "fr", of=replace(stimuli, polarity="lower_better")).text
    assert stated(turned) == [83, 33]
    assert "the answer for the example is: first" in turned


def test_equal_exemplars_are_comparable(build, stimuli):
    """People who scored both alike prefer neither."""
    equal = tuple(replace(s, mos=40.0) for s in stimuli.exemplars)
    prompt = build("double", "in_context", "fr", of=replace(stimuli, exemplars=equal))
    assert "the answer for the example is: comparable" in prompt.text
    listed = build("multiple", "in_context", "fr", of=replace(stimuli, exemplars=equal))
    assert "A=0, B=0, C=0, D=0" in listed.text


def test_paper_preset_shows_exemplars_as_the_released_prompts_do(build, stimuli):
    """A rating of 50, the better of a pair first, a list from worst to best."""
    assert stated(build("single", "in_context", "fr", preset="paper").text) == [50]
    paired = build("double", "in_context", "fr", preset="paper")
    assert stated(paired.text) == [67, 17]
    assert "the answer for the example is: first" in paired.text
    listed = build("multiple", "in_context", "fr", preset="paper")
    assert stated(listed.text) == [17, 33, 50, 67]
    assert "A=0, B=1, C=2, D=3" in listed.text
    shown = list(listed.images[1:5])
    assert shown == [stimuli.exemplars[k].image for k in (1, 3, 0, 2)]


def test_too_few_exemplars_say_how_many(build, stimuli):
    """In-context cells of a small set are refused, not filled with tests."""
    few = replace(stimuli, exemplars=stimuli.exemplars[:1])
    build("single", "in_context", "fr", of=few)
    with pytest.raises(DesignError, match=r"double-stimulus protocol show 2 exemplars .* out 1"):
        build("double", "in_context", "fr", of=few)


def test_exemplars_of_two_references_are_refused(build, stimuli, rated_set):
    """One reference is shown before them: the other's exemplars would be judged against it."""
    other = rated_set([50], references=["other"]).stimuli[0]
    mixed = replace(stimuli, exemplars=(*stimuli.exemplars[:3], other))
    build("multiple", "in_context", "nr", of=mixed)
    with pytest.raises(DesignError, match="shows one reference, but its images have 2"):
        build("multiple", "in_context", "fr", of=mixed)


@pytest.mark.parametrize("scenario", ["fr", "difference"])
def test_reference_scenarios_need_a_reference(build, rated_set, scenario):
    """A stimulus without one names itself."""
    with pytest.raises(DesignError, match=r"test-0\.png has no reference image"):
        build("single", "standard", scenario, of=rated_set([1, 2]))


# --- Strategies of one's own ---------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A YAML file of strategies, and its templates by name."""

    def write(text: str, **templates: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        (tmp_path / "wording").mkdir(exist_ok=True)
        for name, template in templates.items():
            (tmp_path / "wording" / f"{name}.txt").write_text(template)
        return path

    return write


def test_own_strategy_joins_those_in_the_box(own, build):
    """Its folder is taken relative to its file, its name stands in the template field."""
    extra = own(
        "terse: {templates: wording, exemplars: true, max_tokens: 9}",
        single_nr="{{ look_for }} {{ scores[0] }}\nScore: N\n{{ image_key }}",
    )
    assert list(load_strategies(extra)) == [*STRATEGIES, "terse"]
    prompt = build("single", "terse", "nr", extra=extra)
    assert (prompt.template, prompt.max_tokens, prompt.n_before) == ("terse/single_nr", 9, 1)
    assert prompt.text.endswith(
        "50\nScore: N\nImages, in order: image 1 is the example image; image 2 is the test image."
    )


def test_own_file_may_replace_a_strategy(own):
    """A line called "standard" takes the place of ours."""
    extra = own("standard: {templates: wording}")
    expected = Strategy("standard", extra.parent / "wording", False, 256)
    assert find_strategy("standard", extra) == expected
    assert find_strategy("standard").templates != expected.templates


@pytest.mark.parametrize(
    "text",
    [
        "a: {exemplars: true}",
        "a: wording",
        "a:",
        "a: {templates: 3}",
        "a: {templates: wording, max_tokens: many}",
        "a: {templates: wording, max_tokens: 0}",
        "a: {templates: wording, exemplars: 'false'}",
    ],
)
def test_faulty_line_names_the_strategy(own, text):
    """What a line must look like, in one line."""
    with pytest.raises(UsageError, match=r"mine\.yaml: strategy 'a' must read \{templates: FOLDER"):
        load_strategies(own(text))


@pytest.mark.parametrize("text", ["a: [", "a: {b: }}", "\tx", "a: !!python/object:os.system x"])
def test_broken_yaml_is_one_line(own, text):
    """PyYAML's explanation, put on one line; nothing in the file is run."""
    with pytest.raises(UsageError, match=r"mine\.yaml cannot be read: ") as caught:
        load_strategies(own(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b", "word"])
def test_yaml_without_names(own, text):
    """A file that is no mapping says what it is."""
    with pytest.raises(UsageError, match="expected a mapping of names, got"):
        load_strategies(own(text))


def test_absent_strategies_file(tmp_path):
    """The path is in the message."""
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read: .*No such file"):
        load_strategies(tmp_path / "absent.yaml")


def test_unknown_strategy_suggests_the_nearest():
    """The known names are listed."""
    with pytest.raises(UsageError, match=r"unknown strategy 'standart'\. Did you mean 'standard'"):
        find_strategy("standart")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ look_for", "unexpected end of template"),
        ("{% if %}", "Expected an expression"),
        ("{{ wording }}", "'wording' is undefined"),
        ("{{ scores[0] }}", "has no element 0"),
        ("{{ 1 // 0 }}", "division"),
        ("{{ n + 'x' }}", "unsupported operand"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ image_key.format.__globals__ }}", "unsafe"),
        ("{% for k in range(10 ** 9) %}x{% endfor %}", "[Rr]ange too big"),
        ("{% include 'secrets.txt' %}", "no loader for this environment"),
    ],
)
def test_faulty_or_hostile_template_is_one_line(own, build, template, said):
    """The file and what is wrong with it; the sandbox gives nothing away."""
    extra = own("mine: {templates: wording}", single_nr=template)
    with pytest.raises(UsageError, match=rf"single_nr\.txt: .*{said}") as caught:
        build("single", "mine", "nr", extra=extra)
    assert "\n" not in str(caught.value)


def test_absent_or_unreadable_template(own, build):
    """A folder that lacks a template, and one whose template is not text."""
    extra = own("mine: {templates: wording}")
    with pytest.raises(UsageError, match=r"double_nr\.txt: .*No such file"):
        build("double", "mine", "nr", extra=extra)
    (extra.parent / "wording" / "double_nr.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"double_nr\.txt: .*can't decode"):
        build("double", "mine", "nr", extra=extra)
