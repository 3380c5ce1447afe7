"""Claim: the model orders distorted versions of a reference as people do."""

import pytest


@pytest.mark.iqa(scenario="fr")
def test_full_reference(outcome):
    outcome.check()
