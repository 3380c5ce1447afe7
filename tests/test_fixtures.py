"""The fixture modules that the root conftest loads."""

from __future__ import annotations


def test_difficult_samples_of_a_builtin_set(difficult_samples):
    """Thirty samples, chosen by an expert that needs no download, and the notes say so."""
    samples = difficult_samples("builtin-color", "difference")
    assert len(samples) == 30
    assert any("difficult for psnr + ssim, features offline" in note for note in samples.notes)
