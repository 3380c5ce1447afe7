"""Loads the fixture modules; the plugin itself is the entry point iqa_checks.plugin."""

pytest_plugins = ["fixtures.stimuli", "fixtures.images", "fixtures.experts"]
