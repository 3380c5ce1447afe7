"""The fixture modules that the root conftest loads."""

from __future__ import annotations


def test_difficult_samples_of_a_builtin_set(difficult_samples):
    """Thirty samples, chosen by an expert that needs no download, and the notes say so."""
    samples = difficult_samples("builtin-color", "difference")
    assert len(samples) == 30
    assert any("difficult for psnr + ssim, features offline" in note for note in samples.notes)


def test_textures_are_selected_from_although_experts_are_reversed_there(difficult_samples):
    """A rising curve through them would be flat, and a flat expert selects nothing."""
    samples = difficult_samples("builtin-texture", "fr")
    assert len(samples) == 30
    assert any("gmsd + ms_ssim (aligned by rank)" in note for note in samples.notes)
