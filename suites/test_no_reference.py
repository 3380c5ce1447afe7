"""Claim: the model orders images without a reference as people do."""

import pytest


@pytest.mark.iqa(scenario="nr")
def test_no_reference(outcome):
    outcome.check()
