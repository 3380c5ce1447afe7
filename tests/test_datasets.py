"""Sets by name, and a table of one's own: selection, exemplars, references, resizing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from iqa_checks.datasets import (
    OWN,
    StimulusSource,
    as_attribute,
    load_dataset,
    names_for,
    read_columns,
    stimuli_for,
)
from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError


@pytest.fixture
def folder(tmp_path, picture):
    """Three references with eight distorted images each, and their table."""
    lines = ["image,mos,reference"]
    for r in range(3):
        (tmp_path / f"ref{r}.png").write_bytes(picture(1000 + r))
        for k in range(8):
            name = f"r{r}_{k}.png"
            (tmp_path / name).write_bytes(picture(100 * r + k))
            lines.append(f"{name},{1 + (5 * k + 3 * r) % 24 / 6},ref{r}.png")
    (tmp_path / "ratings.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def source(folder):
    return StimulusSource(folder / "cache", ratings=folder / "ratings.csv", scale=(1.0, 5.0))


def test_own_ratings_hold_out_exemplars(source):
    """Four of one reference, shown in in-context prompts, never tested."""
    stimuli = stimuli_for(OWN, "fr", source)
    assert (len(stimuli), len(stimuli.exemplars)) == (20, 4)
    assert not {s.sha256 for s in stimuli.stimuli} & {s.sha256 for s in stimuli.exemplars}
    assert len({s.reference for s in stimuli.exemplars}) == 1
    assert stimuli.has_references
    assert (stimuli.name, stimuli.opinion, stimuli.scale) == (OWN, "MOS", (1.0, 5.0))


def test_no_reference_cells_drop_the_references(source):
    """The same table without its reference column's images."""
    stimuli = stimuli_for(OWN, "nr", source)
    assert not any(s.reference for s in (*stimuli.stimuli, *stimuli.exemplars))
    assert len(stimuli) == 20


def test_order_of_the_table_does_not_matter(source, folder):
    """Reversed rows: the same manifest, the same exemplars."""
    head, *rows = (folder / "ratings.csv").read_text().splitlines()
    (folder / "reversed.csv").write_text("\n".join([head, *rows[::-1]]))
    for scenario in ("fr", "nr"):
        for limit in (None, 7):
            known = stimuli_for(OWN, scenario, replace(source, limit=limit))
            other = stimuli_for(
                OWN, scenario, replace(source, limit=limit, ratings=folder / "reversed.csv")
            )
            assert other.manifest == known.manifest
            assert other.exemplars == known.exemplars


def test_limit_spreads_over_the_scores(source):
    """The lowest and the highest that are not exemplars stay; a note tells how many of how many."""
    whole, few = (stimuli_for(OWN, "nr", replace(source, limit=n)) for n in (None, 5))
    assert len(few) == 5
    assert {s.sha256 for s in few.stimuli} < {s.sha256 for s in whole.stimuli}
    assert (few.mos.min(), few.mos.max()) == (whole.mos.min(), whole.mos.max())
    assert "5 of 24 stimuli, 4 more held out as exemplars" in few.notes


def test_limited_images_alone_are_opened(source, folder):
    """A large table costs only what is asked about: an absent image that is not picked is fine."""
    picked = {s.path for s in stimuli_for(OWN, "nr", replace(source, limit=4)).stimuli}
    exemplars = {s.path for s in stimuli_for(OWN, "nr", replace(source, limit=4)).exemplars}
    other = next(p for p in sorted(folder.glob("r?_*.png")) if p not in picked | exemplars)
    other.unlink()
    assert len(stimuli_for(OWN, "nr", replace(source, limit=4))) == 4
    with pytest.raises(StimulusError, match=rf"{other.name}'? cannot be read"):
        stimuli_for(OWN, "nr", source)


def test_seed_draws_the_exemplars_reference(source):
    """Among references with equally many stimuli."""
    drawn = {
        stimuli_for(OWN, "fr", replace(source, seed=seed)).exemplars[0].reference.name
        for seed in range(12)
    }
    assert len(drawn) == 3


def test_small_tables_hold_out_nothing(source, folder):
    """Seven stimuli are too few to give four away."""
    lines = (folder / "ratings.csv").read_text().splitlines()
    (folder / "small.csv").write_text("\n".join(lines[:8]))
    stimuli = stimuli_for(OWN, "nr", replace(source, ratings=folder / "small.csv"))
    assert (len(stimuli), stimuli.exemplars) == (7, ())


def test_first_row_alone_does_not_decide_whether_there_are_sds(source, folder):
    """Its field may be empty; the SDs of the other rows are there all the same."""
    head, *rows = (folder / "ratings.csv").read_text().splitlines()
    lines = [f"{head},opinion_sd", f"{rows[0]},", *(f"{row},0.7" for row in rows[1:])]
    (folder / "sd.csv").write_text("\n".join(lines))
    stimuli = stimuli_for(OWN, "nr", replace(source, ratings=folder / "sd.csv"))
    assert stimuli.sd_kind == "per_opinion"
    assert stimuli_for(OWN, "nr", source).sd_kind == "none"


def test_table_without_references_skips_fr(source, folder):
    """What to do is in the reason; the no-reference cells run."""
    text = (folder / "ratings.csv").read_text()
    (folder / "nr.csv").write_text(text.replace("reference", "remark"))
    bare = replace(source, ratings=folder / "nr.csv")
    with pytest.raises(StimuliAbsent, match="names no references: fr cells need a column"):
        stimuli_for(OWN, "fr", bare)
    assert len(stimuli_for(OWN, "nr", bare)) == 20


def test_dmos_is_called_so(source):
    """Polarity decides the name of the opinion."""
    assert stimuli_for(OWN, "nr", replace(source, polarity="lower_better")).opinion == "DMOS"


def test_resize_is_explicit_and_recorded(source, folder):
    """Distorted images of another size become the reference's, with hashes of their own."""
    small = folder / "r0_3.png"
    whole = PIL.Image.open(small)
    whole.resize((12, 8)).save(small)
    resized = stimuli_for(OWN, "fr", replace(source, resize_to_reference=True))
    sizes = {(s.image.width, s.image.height) for s in (*resized.stimuli, *resized.exemplars)}
    assert sizes == {(24, 16)}
    assert "distorted images were resized to their reference (Lanczos)" in resized.notes
    every = (*resized.stimuli, *resized.exemplars)
    changed = [s for s in every if s.path.parent != folder]
    assert len(changed) == 1
    assert changed[0].path.is_relative_to(folder / "cache")
    plain = stimuli_for(OWN, "fr", source)
    assert not any("Lanczos" in note for note in plain.notes)
    assert all(s.path.parent == folder for s in (*plain.stimuli, *plain.exemplars))
    expected = np.asarray(PIL.Image.open(small).resize((24, 16), PIL.Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(PIL.Image.open(changed[0].path)), expected)


@pytest.mark.parametrize("scenario", ["fr", "nr", "difference"])
def test_names_by_scenario(tmp_path, scenario):
    """Built-in sets first, the paper's after; one's own table replaces them all."""
    names = names_for(scenario, StimulusSource(tmp_path))
    expected = {
        "fr": {"builtin", "FR-KADID", "Aug-KADID", "TQD"},
        "nr": {"builtin", "NR-KADID", "SPAQ", "AGIQA-3K"},
        "difference": {"SPCD"},
    }[scenario]
    assert expected <= set(names)
    assert Counter(names).most_common(1)[0][1] == 1
    own = StimulusSource(tmp_path, ratings=tmp_path / "x.csv")
    assert names_for(scenario, own) == ([] if scenario == "difference" else [OWN])
    colors = replace(own, attribute="color_difference")
    assert names_for(scenario, colors) == ([OWN] if scenario == "difference" else [])


def test_absent_set_says_how_to_get_it(tmp_path):
    """Skipped with one line, not failed."""
    with pytest.raises(StimuliAbsent, match=r"SPAQ is not at hand: .*github\.com/h4nwei/SPAQ"):
        stimuli_for("SPAQ", "nr", StimulusSource(tmp_path))
    with pytest.raises(StimuliAbsent, match="SPAQ is not at hand"):
        load_dataset("SPAQ")


def test_unknown_set_lists_the_known():
    """A misspelt name gets a suggestion."""
    with pytest.raises(UsageError, match=r"unknown data set 'SPAC'\. Did you mean '?SP"):
        load_dataset("SPAC")


def test_columns_are_read():
    """OURS=THEIRS pairs; spaces do not matter."""
    assert read_columns("") == {}
    assert read_columns("mos=lab mos, reference = ref") == {"mos": "lab mos", "reference": "ref"}


@pytest.mark.parametrize("text", ["mos", "mos=", "score=mos", "=x", "mos:x"])
def test_faulty_columns_list_ours(text):
    """Our names are listed."""
    with pytest.raises(UsageError, match="must read OURS=THEIRS with OURS one of image, mos"):
        read_columns(text)


def test_attributes_are_checked():
    """Known ones pass, others suggest."""
    assert as_attribute("texture") == "texture"
    with pytest.raises(UsageError, match="unknown attribute 'textur'"):
        as_attribute("textur")
