"""Stimuli: what is refused and why, identity by bytes, polarity, manifests."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks import stimuli
from iqa_checks.errors import StimulusError
from iqa_checks.stimuli import Rated, check_opinions, read_image, verify


def refusal(path: Path, **options: object) -> str:
    """The message of a refused image; one line that says where."""
    with pytest.raises(StimulusError) as caught:
        read_image(path, where="table.csv, row 7", **options)
    message = str(caught.value)
    assert message.startswith("table.csv, row 7: ")
    assert path.name in message
    assert "\n" not in message
    return message


def claimed_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header, checksum and all."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ("kind", "mime"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_image_is_described_by_its_bytes_not_its_name(tmp_path, picture, kind, mime):
    """The MIME type is the content's, whatever the file is called; the hash is of the bytes."""
    path = tmp_path / "photo.bmp"
    path.write_bytes(picture(1, kind))
    image = read_image(path, where="here")
    assert (image.mime, image.width, image.height) == (mime, 24, 16)
    assert image.sha256 == hashlib.sha256(picture(1, kind)).hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_image_is_refused(tmp_path, picture, kind, share):
    """Half a file, or one that lacks its last tenth, is not a whole image."""
    data = picture(2, kind, (64, 48))
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    assert "not a whole image" in refusal(path)


def test_damaged_png_is_refused(tmp_path, picture):
    """One flipped byte in the pixel data breaks a chunk checksum."""
    data = bytearray(picture(3))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path = tmp_path / "damaged.png"
    path.write_bytes(data)
    assert "not a whole image" in refusal(path)


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_unsendable_format_names_itself_and_the_way_out(tmp_path, picture, kind):
    """BMP and TIFF are images that endpoints do not decode."""
    path = tmp_path / "photo.png"
    path.write_bytes(picture(4, kind))
    message = refusal(path)
    assert f"is a {kind} file" in message
    assert "convert it without loss to PNG" in message


def test_text_is_no_image(tmp_path):
    """The message says what is expected, and holds no memory address."""
    path = tmp_path / "notes.png"
    path.write_text("mos,image\n")
    message = refusal(path)
    assert "is not an image; expected GIF, JPEG, PNG, WEBP" in message
    assert "0x" not in message


def test_empty_file_is_refused(tmp_path):
    """Zero bytes have their own words."""
    (tmp_path / "empty.png").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.png")


def test_absent_image_says_where_paths_start(tmp_path):
    """The usual mistake is a path relative to something else."""
    message = refusal(tmp_path / "absent.png")
    assert "No such file" in message
    assert "relative to its table's folder" in message


def test_folder_and_pipe_are_no_images(tmp_path):
    """Neither a folder nor a pipe, which would be waited for without end, is opened."""
    os.mkfifo(tmp_path / "pipe.png")
    assert "is not a file" in refusal(tmp_path / "pipe.png")
    assert "is not a file" in refusal(tmp_path)


def test_nul_in_a_name_is_an_error_of_the_stimulus(tmp_path):
    """A name that no file system takes is reported like any absent file."""
    with pytest.raises(StimulusError, match=r"row 7: image .* cannot be read"):
        read_image(tmp_path / "a\0b.png", where="table.csv, row 7")


@pytest.mark.parametrize("size", [(50_000, 50_000), (12_000, 12_000), (10_001, 10_000)])
def test_bomb_is_refused_before_it_is_decoded(tmp_path, picture, size):
    """A header that claims too many pixels is believed, not tried."""
    path = tmp_path / "bomb.png"
    path.write_bytes(claimed_size(picture(5), *size))
    message = refusal(path)
    assert "at most 100,000,000 are decoded; give a smaller image" in message


def test_largest_permitted_size_passes(tmp_path, picture, monkeypatch):
    """The limit itself is allowed."""
    monkeypatch.setattr(stimuli, "MAX_PIXELS", 24 * 16)
    (tmp_path / "a.png").write_bytes(picture(6))
    assert read_image(tmp_path / "a.png", where="here").width == 24
    monkeypatch.setattr(stimuli, "MAX_PIXELS", 24 * 16 - 1)
    assert "24 x 16 pixels" in refusal(tmp_path / "a.png")


def test_huge_file_is_refused_unread(tmp_path):
    """Over 64 MiB nothing is read: a sparse file of 65 MiB costs no time."""
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(65 * 2**20)
    message = refusal(tmp_path / "huge.png")
    assert "has 65 MiB; at most 64 MiB" in message


def test_hash_mismatch_shows_both(tmp_path, picture):
    """A file that changed since its table was made is refused; capital digits are the same hash."""
    path = tmp_path / "a.png"
    path.write_bytes(picture(7))
    digest = hashlib.sha256(picture(7)).hexdigest()
    assert read_image(path, where="here", expected_sha256=digest.upper()).sha256 == digest
    message = refusal(path, expected_sha256="0" * 64)
    assert "expected SHA-256 000000000000…" in message
    assert digest[:12] in message


def test_verify_checks_a_hash_also_when_the_file_was_opened_before(tmp_path, picture):
    """An image that served as a reference first is still held against its own row's hash."""
    for name, seed in (("a.png", 1), ("b.png", 2)):
        (tmp_path / name).write_bytes(picture(seed))
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    rows = [Rated(b, 1.0, reference=a, row="row 2"), Rated(a, 5.0, sha256="f" * 64, row="row 3")]
    with pytest.raises(StimulusError, match=r"row 3: .*a\.png has changed"):
        verify(rows, name="table")


def test_verify_reads_each_file_once(tmp_path, picture, monkeypatch):
    """A reference shared by many stimuli is opened once."""
    reads = []
    whole = stimuli.read_image
    monkeypatch.setattr(
        stimuli, "read_image", lambda path, **k: (reads.append(path), whole(path, **k))[1]
    )
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(picture(k))
    rows = [Rated(tmp_path / f"{k}.png", k, reference=tmp_path / "0.png") for k in range(1, 4)]
    found = verify(rows, name="table")
    assert sorted(reads) == [tmp_path / f"{k}.png" for k in range(4)]
    assert {s.reference for s in found} == {tmp_path / "0.png"}


@given(st.permutations(range(6)))
def test_manifest_does_not_depend_on_order(rated_set, order):
    """Two tables with the same rows in another order ask the same thing."""
    known = rated_set([10, 20, 30, 40, 50, 60])
    shuffled = replace(known, stimuli=tuple(known.stimuli[k] for k in order))
    assert shuffled.manifest == known.manifest


def test_manifest_depends_on_all_that_is_asked(rated_set):
    """Another score, SD, scale, polarity, reference or stimulus is another set."""
    known = rated_set([10, 20, 30])
    first, *rest = known.stimuli
    others = [
        replace(known, stimuli=(replace(first, mos=11.0), *rest)),
        replace(known, stimuli=(replace(first, opinion_sd=1.0), *rest)),
        replace(known, stimuli=(replace(first, reference_image=rest[0].image), *rest)),
        replace(known, stimuli=tuple(rest)),
        replace(known, scale=(0.0, 101.0)),
        replace(known, polarity="lower_better"),
    ]
    assert len({s.manifest for s in [known, *others]}) == 7


def test_quality_is_oriented_and_on_0_to_100(rated_set):
    """DMOS of 1..5 turns round; a MOS keeps its direction."""
    mos = rated_set([1, 2, 5], scale=(1.0, 5.0))
    assert mos.quality.tolist() == [0, 25, 100]
    dmos = replace(mos, polarity="lower_better")
    assert dmos.quality.tolist() == [100, 75, 0]
    assert dmos.mos.tolist() == [1, 2, 5]


def test_identity_of_a_pair_depends_on_both_images_in_order(rated_set):
    """The same picture against another reference is another stimulus."""
    a, b = rated_set([1, 2], references=["x", "y"]).stimuli
    swapped = replace(a, image=a.reference_image, reference_image=a.image)
    other = replace(a, reference_image=b.reference_image)
    assert len({a.sha256, swapped.sha256, other.sha256, a.image.sha256}) == 4


def test_with_references_keeps_the_note(rated_set):
    """Stimuli without a reference leave a full-reference set, and the set says so."""
    mixed = rated_set([1, 2, 3], references=["x", "x", "x"])
    bare = replace(mixed.stimuli[0], reference_image=None)
    mixed = replace(mixed, stimuli=(bare, *mixed.stimuli[1:]))
    kept = mixed.with_references()
    assert len(kept) == 2
    assert kept.notes == ("2 of 3 stimuli: stimuli with a reference",)
    assert kept.with_references() is kept
    assert not mixed.has_references


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mos": 5.1}, r"row 2: score 5\.1 of a\.png lies outside the scale 1\.\.5"),
        ({"mos": 0.9}, r"outside the scale 1\.\.5.*--iqa-scale LOW:HIGH"),
        ({"mos": float("nan")}, "row 2: score nan"),
        ({"opinion_sd": -0.1}, r"row 2: opinion SD -0\.1 is not a finite number >= 0"),
        ({"opinion_sd": float("inf")}, "row 2: opinion SD inf"),
    ],
)
def test_opinions_out_of_range_name_their_row(changed, said):
    """Scores lie on the scale, both ends included; deviations are finite and not negative."""
    rows = [Rated(Path("a.png"), 1.0, 0.0, row="row 2"), Rated(Path("b.png"), 5.0, row="row 3")]
    check_opinions(rows, (1.0, 5.0), name="table")
    with pytest.raises(StimulusError, match=said):
        check_opinions([replace(rows[0], **changed), rows[1]], (1.0, 5.0), name="table")


def test_stimulus_rated_twice_names_both_rows():
    """One row per stimulus; the same image against another reference is another stimulus."""
    one = Rated(Path("a.png"), 1.0, row="row 2")
    other = Rated(Path("a.png"), 2.0, reference=Path("r.png"), row="row 3")
    check_opinions([one, other], (0.0, 5.0), name="table")
    with pytest.raises(StimulusError, match=r"row 4: a\.png was rated before, in row 2"):
        check_opinions([one, other, replace(one, mos=3.0, row="row 4")], (0, 5), name="table")


@pytest.mark.parametrize("scale", [(5.0, 1.0), (1.0, 1.0), (float("nan"), 5.0), (0, float("inf"))])
def test_empty_scale_is_refused(scale):
    """A scale has a low end, a high end, and room between."""
    with pytest.raises(StimulusError, match="is empty; give its two ends"):
        check_opinions([Rated(Path("a.png"), 1.0)], scale, name="table")


def test_constant_and_no_opinions_are_refused():
    """Neither defines a correlation."""
    rows = [Rated(Path(name), 3.0, row=name) for name in "ab"]
    with pytest.raises(StimulusError, match="table: all 2 scores are 3: no correlation"):
        check_opinions(rows, (1, 5), name="table")
    with pytest.raises(StimulusError, match="table: no stimuli"):
        check_opinions([], (1, 5), name="table")
