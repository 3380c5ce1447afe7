"""Claim: the model sees every image that it is sent, each in its place.

Where this fails, the double- and multiple-stimulus results of the model mean little: it answers
about images at which it did not look (the paper's Fig. 5).
"""

import pytest


@pytest.mark.parametrize("n_images", [2, 4], ids="images-{}".format)
def test_every_image_is_seen(n_images, seen):
    if seen.blind:
        pytest.fail(f"what changes at {seen.blind} changes no answer. {seen}", pytrace=False)
