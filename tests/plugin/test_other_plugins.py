"""Beside other plugins: an option of theirs stays theirs, and nothing breaks."""

from __future__ import annotations

import pytest


def test_model_of_another_plugin_stays_its_own(pytester: pytest.Pytester, monkeypatch):
    """Their --model is read by them; ours is still there as --iqa-model."""
    pytester.makepyfile(
        theirs="""
        def pytest_addoption(parser):
            parser.addoption("--model", dest="their_model", default="")
        """,
        test_theirs="""
        def test_option(pytestconfig):
            assert pytestconfig.getoption("their_model") == "t5"
            assert pytestconfig.getoption("iqa_model") == "random"
        """,
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    result = pytester.runpytest_subprocess(
        "-p", "theirs", "--model", "t5", "--iqa-model", "random", "test_theirs.py"
    )
    result.assert_outcomes(passed=1)
