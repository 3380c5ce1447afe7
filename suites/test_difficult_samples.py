"""Claim: the model sees quality where expert metrics and people disagree (the paper's Tables 2, 3).

Left out of a run unless it is asked for: ``-m difficult``, ``-m experts`` (no model needed), or
this file's name.
"""

import pytest

pytestmark = pytest.mark.difficult


@pytest.mark.experts
def test_experts(expert_outcome):
    expert_outcome.check()


@pytest.mark.iqa(scenario="fr", selection="difficult", system="best")
def test_model_full_reference(outcome):
    outcome.check()


@pytest.mark.iqa(scenario="difference", selection="difficult", system="best")
def test_model_color_difference(outcome):
    outcome.check()


@pytest.mark.iqa(scenario="nr", selection="difficult", system="best")
def test_model_no_reference(outcome):
    outcome.check()
