"""Generated sets: counts, labels, determinism, and a cache that repairs itself."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from iqa_checks.builtin import BUILTIN, builtin_set
from iqa_checks.errors import DesignError, UsageError

SETS = [(scenario, name) for scenario, names in BUILTIN.items() for name in names]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all tests here: an image is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("scenario", "name"), SETS)
def test_small_sets(cache, scenario, name):
    """As many as asked for, on their scale, labelled, exemplars apart and complete."""
    stimuli = builtin_set(scenario, cache, name=name, limit=9)
    assert len(stimuli) == 9
    low, high = stimuli.scale
    every = (*stimuli.stimuli, *stimuli.exemplars)
    assert all(low <= s.mos <= high for s in every)
    assert len({s.mos for s in stimuli.stimuli}) > 3
    assert (scenario == "nr") != any(s.reference for s in every)
    assert len(stimuli.exemplars) >= 4
    assert not {s.image.sha256 for s in stimuli.stimuli} & {
        s.image.sha256 for s in stimuli.exemplars
    }
    assert stimuli.notes
    assert stimuli.opinion != "MOS"


def test_full_reference_set_has_equally_many_of_each(cache):
    """Ranks are within a reference: at least three each, exemplars of another picture."""
    stimuli = builtin_set("fr", cache, limit=12)
    counts = Counter(stimuli.references)
    assert set(counts.values()) == {3}
    assert not set(counts) & {s.reference_image.sha256 for s in stimuli.exemplars}
    assert len({s.reference for s in stimuli.exemplars}) == 1


def test_no_reference_set_spans_the_scale(cache):
    """From nearly ruined to nearly untouched."""
    stimuli = builtin_set("nr", cache, limit=9)
    assert stimuli.mos.min() < 2
    assert stimuli.mos.max() > 4
    assert stimuli.attribute == "structure"
    assert "not ratings" in stimuli.notes[0]


def test_sets_are_the_same_in_another_cache(cache, tmp_path):
    """Names, bytes and scores: a result can be repeated elsewhere."""
    first = builtin_set("nr", cache, limit=3)
    second = builtin_set("nr", tmp_path, limit=3)
    assert second.manifest == first.manifest
    assert [s.path.name for s in second.stimuli] == [s.path.name for s in first.stimuli]


def test_seed_gives_another_set(cache):
    """Seeds move picks and noise."""
    assert builtin_set("nr", cache, limit=3, seed=1).manifest != (
        builtin_set("nr", cache, limit=3).manifest
    )


def test_damaged_image_is_made_again(cache):
    """A truncated file, or one with other bytes, does not match its record."""
    stimuli = builtin_set("nr", cache, limit=3)
    path = stimuli.stimuli[1].path
    whole = path.read_bytes()
    for damage in (whole[:1000], whole + b"x", b""):
        path.write_bytes(damage)
        assert builtin_set("nr", cache, limit=3).manifest == stimuli.manifest
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stimuli.stimuli[1].image.sha256


def test_cached_images_are_not_made_again(cache, monkeypatch):
    """The second run only reads."""
    stimuli = builtin_set("nr", cache, limit=3)
    before = {s.path: s.path.stat().st_mtime_ns for s in stimuli.stimuli}
    builtin_set("nr", cache, limit=3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [p for p in cache.rglob("tmp*") if p.is_file()]


def test_too_few_and_unknown(cache):
    """Two stimuli at least; names are checked per scenario."""
    with pytest.raises(DesignError, match="at least 2 stimuli, asked for 1"):
        builtin_set("nr", cache, limit=1)
    with pytest.raises(UsageError, match="unknown generated nr set 'builtin-color'"):
        builtin_set("nr", cache, name="builtin-color")
