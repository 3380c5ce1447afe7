"""Claim: the model sees colour differences between photographs as people do."""

import pytest


@pytest.mark.iqa(scenario="difference")
def test_color_difference(outcome):
    outcome.check()
