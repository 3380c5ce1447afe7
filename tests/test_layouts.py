"""Tables of ratings: what is read, and one line for each thing that is wrong."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.errors import StimulusError
from iqa_checks.layouts import RatingTable, load_ratings, parse_scale, read_ratings

GOOD = "image,mos\na.png,1\nb.png,5\n"


@pytest.fixture
def table(tmp_path):
    """A table with the given text or bytes, and how to read it."""

    def write(content: str | bytes, columns: dict[str, str] | None = None, **options):
        path = tmp_path / "ratings.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return RatingTable(path, columns or {}, **options)

    return write


def refusal(table: RatingTable) -> str:
    """The message for a table that cannot be used: one line that names the file."""
    with pytest.raises(StimulusError) as caught:
        read_ratings(table)
    message = str(caught.value)
    assert str(table.path) in message
    assert "\n" not in message
    return message


def test_plain_table(table):
    """Paths are taken relative to the table; a scale that is not stated is the data's own."""
    known = table("image,mos,opinion_sd,reference\nx/a.png,1.5,0.5,r.png\nb.png,4,,\n")
    rows, scale, polarity, note = read_ratings(known)
    folder = known.path.parent
    assert [row.path for row in rows] == [folder / "x/a.png", folder / "b.png"]
    assert [(r.mos, r.opinion_sd) for r in rows] == [(1.5, 0.5), (4.0, None)]
    assert [row.reference for row in rows] == [folder / "r.png", None]
    assert (scale, polarity) == ((1.5, 4.0), "higher_better")
    assert note == "scale not given: the data's own range 1.5..4"


def test_header_lines_state_scale_and_polarity(table):
    """Comments at the top state what the columns cannot; options overrule them."""
    text = "# scale: 0:100\n\n#Polarity: lower_better\n# by: lab 3\n" + GOOD
    _, scale, polarity, note = read_ratings(table(text))
    assert (scale, polarity, note) == ((0.0, 100.0), "lower_better", "scale 0..100")
    overruled = table(text, scale=(1.0, 5.0), polarity="higher_better")
    assert read_ratings(overruled)[1:3] == ((1.0, 5.0), "higher_better")


def test_other_column_names_and_extra_columns(table):
    """Columns go by name, in any order; those that are not asked for may hold anything."""
    text = "who,score,file\nx,1,a.png\n,5,b.png\n"
    rows = read_ratings(table(text, {"image": "file", "mos": "score"}))[0]
    assert [(row.path.name, row.mos) for row in rows] == [("a.png", 1.0), ("b.png", 5.0)]


def test_spreadsheet_habits_are_read(table):
    """A byte order mark, Windows line ends, blank lines, spaces round fields, no last newline."""
    text = "\ufeff# scale: 1:5\r\nimage , mos\r\n a.png , 1 \r\n\r\nb.png,5"
    rows, scale, *_ = read_ratings(table(text.encode()))
    assert [(row.path.name, row.mos) for row in rows] == [("a.png", 1.0), ("b.png", 5.0)]
    assert scale == (1.0, 5.0)


def test_name_with_a_hash_sign_is_a_row_not_a_comment(table):
    """Only lines above the column names are comments: no stimulus may vanish."""
    rows = read_ratings(table("image,mos\n#1.png,1\n#2.png,5\n"))[0]
    assert [row.path.name for row in rows] == ["#1.png", "#2.png"]


def test_name_with_a_line_separator_is_one_row(table):
    """U+2028 and U+0085 end no row."""
    rows = read_ratings(table("image,mos\na\u2028b.png,1\nc\u0085d.png,5\n"))[0]
    assert [row.path.name for row in rows] == ["a\u2028b.png", "c\u0085d.png"]


def test_quoted_newline_and_comma_keep_row_numbers_right(table):
    """A quoted field may hold both; the next error still names its own line of the file."""
    text = '# scale: 1:5\nimage,mos,remark\n"a,1.png",1,"two\nlines"\nb.png,6,\n'
    assert "ratings.csv, row 5: score 6 of b.png" in refusal(table(text))
    rows = read_ratings(table(text.replace(",6,", ",5,")))[0]
    assert [row.path.name for row in rows] == ["a,1.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'image'; it has none"),
        ("\n\n", "no column 'image'; it has none"),
        ("# scale: 1:5\n", "no column 'image'"),
        ("image,mos\n", "no ratings; expected a header and one row per image"),
        ("image,score\na.png,1\n", "no column 'mos'; it has image, score. Rename it, or say"),
        ("file,mos\na.png,1\n", "--iqa-columns image=NAME"),
        ("image;mos\na.png;1\n", "its columns are separated by ';'"),
        ("image,mos,mos\na.png,1,2\n", "two columns are called 'mos'; rename one"),
        (GOOD + "c.png,nan\n", "row 4: score is nan; remove the row or give its score"),
        (GOOD + "c.png,-inf\n", "row 4: score is -inf"),
        (GOOD + "c.png,\n", "row 4: score '' is not a number; correct it"),
        (GOOD + "c.png,good\n", "row 4: score 'good' is not a number"),
        (GOOD + "c.png,1_5\n", "row 4: score '1_5' is not a number"),
        (GOOD + 'c.png,"3,5"\n', "row 4: score '3,5' is not a number (a decimal comma? write a"),
        (GOOD + "c.png,3,5\n", "row 4: 3 fields, but the header has 2; quote fields that hold"),
        (GOOD + "c.png\n", "row 4: 1 fields, but the header has 2"),
        (GOOD + ",3\n", "row 4: no image is named; fill the field or remove the row"),
        (GOOD + "a.png,3\n", "row 4: a.png was rated before, in "),
        (GOOD + "./a.png,3\n", "row 4: a.png was rated before, in "),
        ("# scale: 1:5\n" + GOOD + "c.png,5.5\n", "row 5: score 5.5 of c.png lies outside the"),
        ("image,mos\na.png,3\nb.png,3\n", "all 2 scores are 3: no correlation is defined"),
        ("image,mos,opinion_sd\na.png,3,x\n", "row 2: opinion SD 'x' is not a number"),
        ("image,mos,opinion_sd\na.png,3,-1\nb.png,1,1\n", "row 2: opinion SD -1"),
        (GOOD + '"c.png,3\nd.png,3\n', "row 4: not a CSV table (unexpected end of data)"),
        (GOOD + '"c"x.png,3\n', "row 4: not a CSV table"),
        ("# scale: 5:1\n" + GOOD, "scale '5:1': the low end must lie below the high end"),
        ("# scale: five\n" + GOOD, "scale 'five': expected LOW:HIGH"),
        ("# polarity: up\n" + GOOD, "polarity 'up'; expected higher_better or lower_better"),
    ],
)
def test_faulty_table_is_refused_in_one_line(table, text, said):
    """File, row, what was found and what to do."""
    assert said in refusal(table(text))


def test_dmos_must_state_its_polarity(table):
    """KADID-10k's is higher = better and LIVE's is not: no guess is made."""
    text = "image,dmos\na.png,1\nb.png,5\n"
    assert "give --iqa-polarity" in refusal(table(text, {"mos": "dmos"}))
    assert "give --iqa-polarity" in refusal(
        table(text.replace("dmos", "DMOS_z"), {"mos": "DMOS_z"})
    )
    stated = table("# polarity: lower_better\n" + text, {"mos": "dmos"})
    assert read_ratings(stated)[2] == "lower_better"
    optioned = table(text, {"mos": "dmos"}, polarity="higher_better")
    assert read_ratings(optioned)[2] == "higher_better"


def test_column_named_by_option_must_exist(table):
    """A misspelt optional column is an error, not a set without references."""
    message = refusal(table(GOOD, {"reference": "original"}))
    assert "no column 'original'; it has image, mos" in message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused(table, encoding):
    """The row of the first bad byte and the remedy are named."""
    message = refusal(table("image,mos\na.png,1\nbäume.png,2\n".encode(encoding)))
    assert "not UTF-8 text" in message
    assert "save the table as UTF-8" in message
    assert f"row {3 if encoding == 'latin-1' else 1}" in message


def test_unusable_paths(tmp_path):
    """An absent table, a folder, and a file too large to be one (sparse: it costs no time)."""
    for path in (tmp_path / "absent.csv", tmp_path):
        assert "cannot be read" in refusal(RatingTable(path, {}))
    with open(tmp_path / "huge.csv", "wb") as file:
        file.truncate(257 * 2**20)
    assert "is over 256 MiB" in refusal(RatingTable(tmp_path / "huge.csv", {}))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    """Untrusted bytes never end in another error than StimulusError."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(b"image,mos\n" + data)
    try:
        rows = read_ratings(RatingTable(path, {}))[0]
    except StimulusError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 -- only where one is raised
    else:
        assert len({row.mos for row in rows}) > 1


@pytest.mark.parametrize(
    ("text", "scale"),
    [("1:5", (1, 5)), ("0..100", (0, 100)), ("-1:1", (-1, 1)), (" 0.5 : 1.5 ", (0.5, 1.5))],
)
def test_scale_is_read(text, scale):
    """Both spellings; negative and broken ends."""
    assert parse_scale(text) == scale


@pytest.mark.parametrize("text", ["", "5", "1:5:9", "5:1", "1:1", "a:b", "nan:1", "0:inf"])
def test_faulty_scale(text):
    """Anything but two finite ends in order."""
    with pytest.raises(StimulusError, match="scale"):
        parse_scale(text)


def test_load_ratings_opens_the_images(table, tmp_path, picture):
    """The whole set, verified; hashes in the table are held against the files."""
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.jpg").write_bytes(picture(2, "JPEG"))
    known = load_ratings(table("image,mos\na.png,1\nb.jpg,5\n", scale=(1.0, 5.0)))
    assert [s.image.mime for s in known.stimuli] == ["image/png", "image/jpeg"]
    assert (known.name, known.opinion, known.sd_kind) == ("ratings", "MOS", "none")
    with pytest.raises(StimulusError, match=r"row 2: .*a\.png has changed"):
        load_ratings(table(f"image,mos,sha256\na.png,1,{'0' * 64}\nb.jpg,5,\n"))
    with pytest.raises(StimulusError, match=r"row 3: image .*c\.png'? cannot be read"):
        load_ratings(table("image,mos\na.png,1\nc.png,5\n"))


def test_a_standard_error_is_not_taken_for_the_sd_of_opinions(table):
    """Left out, or turned into one where the number of raters is known; both are said."""
    rows = "image,mos,opinion_sd\na.png,10,2.5\nb.png,90,\nc.png,40,2.5\n"
    head = "# scale: 0:100\n"
    taken, _, _, note = read_ratings(table(head + rows))
    assert [row.opinion_sd for row in taken] == [2.5, None, 2.5]
    assert "average 2.5% of the scale: if they are standard errors" in note
    left_out, _, _, note = read_ratings(table(head + "# opinion_sd: of_the_mean\n" + rows))
    assert [row.opinion_sd for row in left_out] == [None] * 3
    assert "SDs of the mean left out" in note
    stated = head + "# opinion_sd: of_the_mean\n# raters: 25\n"
    turned, _, _, note = read_ratings(table(stated + rows))
    assert [row.opinion_sd for row in turned] == [12.5, None, 12.5]
    assert "root of 25 opinions" in note
    assert (
        "standard errors" not in read_ratings(table(head + "# opinion_sd: per_opinion\n" + rows))[3]
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("# opinion_sd: sem", "opinion_sd 'sem'; expected per_opinion or of_the_mean"),
        ("# opinion_sd: of_the_mean\n# raters: 0", "0 raters"),
        ("# opinion_sd: of_the_mean\n# raters: many", "number of raters 'many' is not a number"),
    ],
)
def test_faulty_statements_on_the_sd(table, line, says):
    with pytest.raises(StimulusError, match=says):
        read_ratings(
            table(f"# scale: 1:5\n{line}\nimage,mos,opinion_sd\na.png,1,0.2\nb.png,5,0.2\n")
        )


def test_load_ratings_refuses_what_published_sets_refuse(table, tmp_path, picture):
    """Transparency: a model may be shown another background than the raters were."""
    PIL.Image.new("RGBA", (8, 8), (9, 9, 9, 99)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(picture(2, "JPEG"))
    with pytest.raises(StimulusError, match=r"a\.png"):
        load_ratings(table("image,mos\na.png,1\nb.jpg,5\n"))


def test_paths_may_leave_the_folder_of_the_table(table):
    """An absolute path stays what it is."""
    rows = read_ratings(table("image,mos\n/data/a.png,1\n../b.png,5\n"))[0]
    assert rows[0].path == Path("/data/a.png")
    assert rows[1].path.parts[-2:] == ("..", "b.png")
