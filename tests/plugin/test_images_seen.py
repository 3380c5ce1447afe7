"""The check of several images as a user runs it."""

from __future__ import annotations

import pytest

import fixtures.images
from iqa_checks.models import ModelSpec

SUITE = """
import pytest

@pytest.mark.parametrize("n_images", [2, 4], ids="images-{}".format)
def test_every_image_is_seen(n_images, seen):
    assert not seen.blind
"""


@pytest.fixture
def team(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(SUITE)
    pytester.makeconftest('pytest_plugins = ["fixtures.images"]')
    return pytester


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_observer_sees_all_images(team, workers):
    result = team.runpytest_inprocess("-n", workers, "--model", "observer", "--junitxml=j.xml")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["images seen:*", " 2 images:  1.00 * seen *", " 4 images:  1.00 * seen *"]
    )
    assert "iqa_images_seen" in (team.path / "j.xml").read_text()


def test_a_model_that_refuses_fails(team):
    result = team.runpytest_inprocess("--model", "observer:lapse=1")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*blind*100% unparsed*"])


def test_plan_counts_it_and_asks_nothing(team):
    result = team.runpytest_inprocess("--model", "observer", "--iqa-plan")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["2 images seen*90*", "4 images seen*150*", "total*240*"])


def test_dead_endpoint_is_an_error_of_infrastructure(team):
    url = "http://127.0.0.1:9/v1"
    result = team.runpytest_inprocess("--model", "openai:x", "--iqa-base-url", url)
    result.assert_outcomes(errors=1)
    assert result.ret == 10


def test_a_model_of_two_images_skips_the_list_of_four(team, monkeypatch):
    two = ModelSpec("observer", "observer", "observer", images_per_prompt=2)
    monkeypatch.setattr(fixtures.images, "find_model", lambda _: two)
    result = team.runpytest_inprocess("--model", "observer", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*observer takes 2 images, not 4*"])
