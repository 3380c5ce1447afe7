"""Tables, names and images that others wrote: every rule of layouts, one damaged file at a time."""

from __future__ import annotations

import io
import os
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import openpyxl
import PIL.Image
import pytest
from hypothesis import given

from iqa_checks.errors import StimulusError
from iqa_checks.layouts.derived import augmented_reference, sendable_copy
from iqa_checks.layouts.folders import Folder, folders_below, safe_parts
from iqa_checks.layouts.images import check_presentation, deep_problem, quick_problem
from iqa_checks.layouts.tables import number, read_table
from iqa_checks.stimuli import Rated, verify

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def encoded(image: PIL.Image.Image | None = None, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or PIL.Image.fromarray(PIXELS)).save(buffer, kind, **options)
    return buffer.getvalue()


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "name,mos\na.png,1.5\nb.png,2\n",
        "name\tmos\r\na.png\t1.5\r\nb.png\t2\r\n",
        "name mos\na.png   1.5\n\nb.png 2",
        "\ufeffname,mos\na.png,1.5\n\nb.png,2\n",
        'name,mos\n"a.png",1.5\n"b.png","2"\n',
    ],
    ids=["comma", "tab", "blanks", "byte-order mark", "quoted"],
)
def test_delimiters(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.txt"
    path.write_bytes(text.encode())
    table = read_table(path)
    assert table.header == ("name", "mos")
    assert [fields for _, fields in table.rows] == [("a.png", "1.5"), ("b.png", "2")]


def test_row_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dmos.csv"
    path.write_text("dist_img,ref_img,dmos,var\na.png,r.png,4.57,0.496\nb.png,r.p")
    with pytest.raises(StimulusError, match=r"dmos\.csv, row 3: 2 fields where 4"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "value"), [("0,0612190731", 0.0612190731), ("4.57", 4.57), ("-2,64", -2.64)]
)
def test_decimal_commas(text: str, value: float) -> None:
    assert number(text, "score", "row 2") == value


@pytest.mark.parametrize("text", ["1,234.5", "1,2,3", "", "nan", "inf", "none"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(StimulusError, match="row 2: score"):
        number(text, "score", "row 2")


def test_spreadsheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS", None])
    book.active.append(["00001.jpg", 48.86, "a remark outside the table"])
    book.active.append([None, None])
    book.active.append(["00002.jpg", 62])
    book.save(tmp_path / "scores.xlsx")
    table = read_table(tmp_path / "scores.xlsx")
    assert table.header == ("Image name", "MOS")
    assert [f for _, f in table.rows] == [("00001.jpg", "48.86"), ("00002.jpg", "62")]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip at all"])
def test_damaged_spreadsheet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scores.xlsx").write_bytes(content)
    with pytest.raises(StimulusError, match="not a readable xlsx"):
        read_table(tmp_path / "scores.xlsx")


def test_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes("name,mos\nä.png,1\n".encode("latin-1"))
    with pytest.raises(StimulusError, match="row 2: not UTF-8"):
        read_table(tmp_path / "scores.csv")


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "images/../../x.png", "a/../b.png", "/etc/passwd", "C:\\x.png", "\\\\h\\x",
     "", "a\0b", "..", "..\\x.png"],
)  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(StimulusError, match="row 7: the name"):
        Folder(tmp_path).find(name, ["images", ""], "row 7")


def test_blank_steps_in_a_name_are_harmless() -> None:
    assert safe_parts("./images//a.png", "") == ["images", "a.png"]
    assert safe_parts("jp2k\\img1.bmp", "") == ["jp2k", "img1.bmp"]


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "a.png").write_bytes(encoded())
    return folder


def test_link_to_a_file_outside(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a.png").symlink_to(outside / "a.png")
    with pytest.raises(StimulusError, match="outside the set's folder"):
        Folder(tmp_path).find("a.png", [""], "row 2")


def test_link_to_a_folder_outside(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "images").symlink_to(outside)
    with pytest.raises(StimulusError, match="outside the set's folder"):
        Folder(tmp_path).find("a.png", ["images"], "row 2")


def test_link_inside_and_link_to_the_set(tmp_path: Path) -> None:
    (tmp_path / "set" / "store").mkdir(parents=True)
    (tmp_path / "set" / "store" / "a.png").write_bytes(encoded())
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "set" / "store" / "a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    for root in ("set", "alias"):
        found = Folder(tmp_path / root).find("a.png", [""], "row 2")
        assert found == tmp_path / root / "a.png"


def test_link_to_nothing_and_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "b.png")
    for name, why in (("a.png", "link to nothing"), ("b.png", "is not a file")):
        with pytest.raises(StimulusError, match=why):
            Folder(tmp_path).find(name, [""], "row 2")


def test_folder_with_an_image_name_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert Folder(tmp_path).find("a.png", [""], "row 2") is None


def test_names_that_differ_by_case(tmp_path: Path) -> None:
    (tmp_path / "I01_01_1.bmp").touch()
    assert Folder(tmp_path).find("i01_01_1.BMP", [""], "row 2") == tmp_path / "I01_01_1.bmp"
    (tmp_path / "i01_01_1.bmp").touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell case")
    exact = Folder(tmp_path).find("i01_01_1.bmp", [""], "row 2")
    assert exact == tmp_path / "i01_01_1.bmp"
    with pytest.raises(StimulusError, match="differ by case alone"):
        Folder(tmp_path).find("I01_01_1.BMP", [""], "row 2")


def test_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for folder in ("512x384", "1024x768"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
    found = Folder(tmp_path).find("1.jpg", ["absent", "1024x768", "512x384"], "row 2")
    assert found == tmp_path / "1024x768" / "1.jpg"


def test_search_goes_three_folders_down_and_follows_no_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "loop").symlink_to(tmp_path)
    seen = [folder.relative_to(tmp_path).as_posix() for folder in folders_below(tmp_path)]
    assert seen == [".", "a", "a/b", "a/b/c"]


@given(st.text(st.sampled_from("./\\:aB\0~ "), max_size=12))
def test_no_name_leads_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "inner" / "set"
    for folder in (root / "a", root.parent / "B", root / "B"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a").touch()
    try:
        found = Folder(root).find(name, ["", "a"], "row 2")
    except StimulusError:
        return
    assert found is None or found.resolve().is_relative_to(root.resolve())


# --- images --------------------------------------------------------------------------------------


def rgb(**options: object) -> bytes:
    return encoded(**options)


def sixteen_bit_grey() -> bytes:
    return encoded(PIL.Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257))


def sixteen_bit_color() -> bytes:
    """Pillow cannot write one: IHDR, one IDAT of 48-bit pixels, IEND."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def with_alpha(low: int) -> bytes:
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[0, 0] = low
    return encoded(PIL.Image.fromarray(np.dstack([PIXELS, alpha])))


def animated(kind: str) -> bytes:
    frames = [PIL.Image.fromarray(np.roll(PIXELS, k, axis=0)) for k in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def turned(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(kind="JPEG", exif=exif)


REFUSED = {
    "16-bit grey": (sixteen_bit_grey, "16 bits"),
    "CMYK": (lambda: encoded(PIL.Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), "CMYK"),
    "animated GIF": (lambda: animated("GIF"), "animated"),
    "animated PNG": (lambda: animated("PNG"), "animated"),
    "animated WebP": (lambda: animated("WEBP"), "animated"),
}
SHOWN_AS_THEY_ARE = {
    "RGB": rgb,
    "grey": lambda: encoded(PIL.Image.fromarray(PIXELS[..., 0])),
    "palette": lambda: encoded(PIL.Image.fromarray(PIXELS).quantize(16)),
    "opaque alpha": lambda: with_alpha(255),
    "JPEG": lambda: encoded(kind="JPEG"),
    "WebP": lambda: encoded(kind="WEBP", lossless=True),
    "EXIF, upright": lambda: turned(1),
}


def stimulus_of(path: Path, data: bytes, reference: bytes | None = None):
    path.write_bytes(data)
    other = None
    if reference is not None:
        other = path.with_name("reference")
        other.write_bytes(reference)
    return verify([Rated(path, 1.0, reference=other)], name="test")


@pytest.mark.parametrize("name", REFUSED)
def test_images_whose_look_depends_on_the_decoder(tmp_path: Path, name: str) -> None:
    make, why = REFUSED[name]
    stimuli = stimulus_of(tmp_path / "image", make())
    with pytest.raises(StimulusError, match=why):
        check_presentation(stimuli)
    assert why in quick_problem(tmp_path / "image")


@pytest.mark.parametrize("name", SHOWN_AS_THEY_ARE)
def test_images_that_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    stimuli = stimulus_of(tmp_path / "image", SHOWN_AS_THEY_ARE[name]())
    assert check_presentation(stimuli) == ()
    assert quick_problem(tmp_path / "image") == deep_problem(tmp_path / "image") == ""


def test_sixteen_bit_color_is_sent_and_noted(tmp_path: Path) -> None:
    (note,) = check_presentation(stimulus_of(tmp_path / "image.png", sixteen_bit_color()))
    assert note == "1 images have 16 bits per channel and are sent as they are"
    assert deep_problem(tmp_path / "image.png") == ""


def test_one_transparent_pixel(tmp_path: Path) -> None:
    stimuli = stimulus_of(tmp_path / "image.png", with_alpha(254))
    with pytest.raises(StimulusError, match="partly transparent"):
        check_presentation(stimuli)
    assert deep_problem(tmp_path / "image.png") == "partly transparent"


def test_exif_rotation_is_noted(tmp_path: Path) -> None:
    (note,) = check_presentation(stimulus_of(tmp_path / "image.jpg", turned(6)))
    assert "1 images carry an EXIF rotation" in note


def test_pair_of_which_one_is_rotated(tmp_path: Path) -> None:
    stimuli = stimulus_of(tmp_path / "image.jpg", turned(6), reference=encoded())
    with pytest.raises(StimulusError, match="different EXIF orientations"):
        check_presentation(stimuli)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"not an image", "not an image"),
        (encoded()[:-20], "cut off|unreadable"),
        (encoded(kind="JPEG")[:-40], "cut off"),
        (encoded(kind="BMP")[:-40], "cut off"),
        (encoded(kind="TIFF"), "a TIFF file"),
        (encoded()[:10], "not an image|unreadable"),
    ],
    ids=["zero bytes", "text", "PNG", "JPEG", "BMP", "TIFF", "ten bytes"],
)
def test_quick_look_at_damaged_files(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "image").write_bytes(data)
    found = quick_problem(tmp_path / "image")
    assert any(part in found for part in why.split("|")), found


def test_bomb_is_not_decoded(tmp_path: Path) -> None:
    """A header that claims 30,000 x 30,000 pixels."""
    import struct
    import zlib

    data = bytearray(encoded())
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "bomb.png").write_bytes(bytes(data))
    assert "pixels" in quick_problem(tmp_path / "bomb.png")
    assert "pixels" in deep_problem(tmp_path / "bomb.png")
    with pytest.raises(StimulusError, match="pixels"):
        verify([Rated(tmp_path / "bomb.png", 1.0)], name="test")


def test_sparse_giant_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "giant.png").open("wb") as file:
        file.write(encoded())
        file.truncate(2**31)
    assert quick_problem(tmp_path / "giant.png") == "2048 MiB"
    with pytest.raises(StimulusError, match="64 MiB"):
        augmented_reference(tmp_path / "giant.png", tmp_path / "cache", where="row 2")


def test_flipped_bit_shows_only_when_decoded(tmp_path: Path) -> None:
    data = bytearray(encoded())
    data[len(data) // 2] ^= 1
    (tmp_path / "image.png").write_bytes(bytes(data))
    assert quick_problem(tmp_path / "image.png") == ""
    assert "unreadable" in deep_problem(tmp_path / "image.png")


# --- images made from them -----------------------------------------------------------------------


def test_bmp_becomes_a_png_of_the_same_pixels(tmp_path: Path) -> None:
    (tmp_path / "i01.BMP").write_bytes(encoded(kind="BMP"))
    made = sendable_copy(tmp_path / "i01.BMP", tmp_path / "cache", where="row 2")
    assert made.suffix == ".png"
    assert np.array_equal(np.asarray(PIL.Image.open(made)), PIXELS)
    assert sendable_copy(tmp_path / "i01.BMP", tmp_path / "cache", where="row 2") == made


def test_other_files_are_sent_untouched(tmp_path: Path) -> None:
    assert sendable_copy(tmp_path / "a.jpg", tmp_path, where="") == tmp_path / "a.jpg"


def test_damaged_copy_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(encoded(kind="BMP"))
    made = sendable_copy(tmp_path / "a.bmp", tmp_path / "cache", where="row 2")
    whole = made.read_bytes()
    made.write_bytes(whole[:-9])
    assert sendable_copy(tmp_path / "a.bmp", tmp_path / "cache", where="row 2") == made
    assert made.read_bytes() == whole


def test_transforms_take_turns_over_the_contents(tmp_path: Path) -> None:
    made = {}
    for k in (1, 2, 3, 4, 5):
        path = tmp_path / f"I{k:02d}.png"
        path.write_bytes(encoded())
        made[k] = augmented_reference(path, tmp_path / f"cache{k}", where="row 2")
        assert made[k].name == f"I{k:02d}_aug.png"
    pixels = {k: PIL.Image.open(path).tobytes() for k, path in made.items()}
    assert len({pixels[k] for k in (1, 2, 3, 4)}) == 4
    assert pixels[5] == pixels[1]


def test_the_authors_reference_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "I12_aug.png"
    path.write_bytes(encoded())
    assert augmented_reference(path, tmp_path / "cache", where="row 2") == path


def test_damaged_bmp_names_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"BM and no more")
    with pytest.raises(StimulusError, match=r"row 2: .*a\.bmp is not a whole image"):
        sendable_copy(tmp_path / "a.bmp", tmp_path / "cache", where="row 2")
