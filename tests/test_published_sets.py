"""Published data sets: small trees with real names and scores, and the real tables whole.

A few real rows of each set stand in `ROWS`. The whole tables and the real images are not part of
the repository: tests that need them are skipped unless IQA_CHECKS_RATED_DATA names their folder.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import openpyxl
import PIL.Image
import pytest
from hypothesis import given
from scipy.io import savemat

from iqa_checks.datasets import (
    StimulusSource,
    check_source,
    list_sets,
    load_dataset,
    main,
    names_for,
    stimuli_for,
)
from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError
from iqa_checks.layouts.published import (
    Entry,
    Found,
    entries,
    find_published,
    locate,
    published_sets,
    read,
)
from iqa_checks.layouts.survey import survey, survey_lines
from iqa_checks.published import read_selection, selection_file
from iqa_checks.selection import select_uniform, select_uniform_by_reference

# Table, its first rows as published, and (image, reference) of each as a path in the set's folder.
KADID = """dist_img,ref_img,dmos,var
I01_01_01.png,I01.png,4.57,0.496
I01_01_02.png,I01.png,4.33,0.869
I01_01_03.png,I01.png,2.67,0.789
I02_01_03.png,I02.png,2.07,0.772
"""
ROWS: dict[str, tuple[str, str, list[tuple[str, str | None]]]] = {
    "FR-KADID": (
        "dmos.csv",
        KADID,
        [
            ("images/I01_01_01.png", "images/I01.png"),
            ("images/I01_01_02.png", "images/I01.png"),
            ("images/I01_01_03.png", "images/I01.png"),
            ("images/I02_01_03.png", "images/I02.png"),
        ],
    ),
    "TQD": (
        "TQD_mos.txt",
        "images/5-0.png\timages/5-1.png\t0.71471\nimages/5-0.png\timages/5-2.png\t0.77106\n",
        [("images/5-1.png", "images/5-0.png"), ("images/5-2.png", "images/5-0.png")],
    ),
    "SPCD": (
        "SPCD_mos_std.txt",
        "I0001_01_03.png I0001_01_06.png 3.34756726 0.6824435584913345\n"
        "I0001_01_02.png I0001_01_06.png 3.700477483 0.7902782654496485\n",
        [
            ("images/I0001_01_06.png", "images/I0001_01_03.png"),
            ("images/I0001_01_06.png", "images/I0001_01_02.png"),
        ],
    ),
    "SPAQ": (
        "SPAQ_mos_std.txt",
        "00001.jpg 48.86 17.5539983235403\n00002.jpg 62.5 23.7005123513034\n",
        [("TestImage/00001.jpg", None), ("TestImage/00002.jpg", None)],
    ),
    "AGIQA-3K": (
        "data.csv",
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        "AttnGAN_normal_000.jpg,statue of a man,,,,0.965602553,0.223270101,0.40889324,0.61560772\n"
        'AttnGAN_normal_001.jpg,"a tray, of sushi",,,,1.361853219,0.645422466,0.4288,0.66706715\n',
        [("AttnGAN_normal_000.jpg", None), ("AttnGAN_normal_001.jpg", None)],
    ),
    "TID2013": (
        "mos_with_names.txt",
        "5.51429 I01_01_1.bmp\n5.56757 i01_01_2.bmp\n",
        [
            ("distorted_images/I01_01_1.bmp", "reference_images/I01.BMP"),
            ("distorted_images/i01_01_2.bmp", "reference_images/I01.BMP"),
        ],
    ),
    "CSIQ": (
        "csiq.DMOS.csv",
        "image,dst_idx,dst_type,dst_lev,dmos_std,dmos\n"
        '1600,1,AWGN,1,"0,0612190731017426","0,06198940631407"\n'
        '1600,2,JPEG,2,"0,063352119952441","0,0691476976770665"\n',
        [
            ("dst_imgs/awgn/1600.AWGN.1.png", "src_imgs/1600.png"),
            ("dst_imgs/jpeg/1600.JPEG.2.png", "src_imgs/1600.png"),
        ],
    ),
    "LIVE": (
        "LIVE2.DMOS.csv",
        "refnames_all,orgs,dist_img,dst_type,dmos_std,dmos_new\n"
        "studentsculpture.bmp,0,img2.bmp,jp2k,1.6294556597749836,15.512954417537028\n"
        "rapids.bmp,0,img3.bmp,jp2k,1.7384717298751982,24.09025497677203\n",
        [
            ("jp2k/img2.bmp", "refimgs/studentsculpture.bmp"),
            ("jp2k/img3.bmp", "refimgs/rapids.bmp"),
        ],
    ),
    "KonIQ-10k": (
        "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
        "10004473376.jpg,0.0,0.0,0.238,0.695,0.0667,105,77.3836206897,0.527277894494,training\n"
        "10007357496.jpg,0.0,0.03125,0.468,0.489,0.0104,96,68.7285714286,0.580003024795,test\n",
        [("512x384/10004473376.jpg", None), ("512x384/10007357496.jpg", None)],
    ),
}  # fmt: skip
KINDS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP"}


def paint(path: Path) -> None:
    """A small picture whose pixels depend on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name)) * 7919 + len(path.name)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path, KINDS[path.suffix.lower()])


def plant(folder: Path, name: str) -> Path:
    """The set's folder with the rows of `ROWS`."""
    table, text, files = ROWS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / table).write_bytes(text.encode())
    for path in {path for pair in files for path in pair if path is not None}:
        paint(folder / path)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def rated_data() -> Path:
    folder = os.environ.get("IQA_CHECKS_RATED_DATA")
    if not folder:
        pytest.skip("IQA_CHECKS_RATED_DATA names no folder of real scores")
    return Path(folder)


@pytest.fixture(scope="session")
def scores(rated_data: Path) -> Path:
    return rated_data / "score_tables"


# --- descriptions --------------------------------------------------------------------------------


def test_every_set_is_described() -> None:
    assert list(published_sets())[:7] == [
        "FR-KADID", "Aug-KADID", "TQD", "SPCD", "NR-KADID", "SPAQ", "AGIQA-3K",
    ]  # fmt: skip
    for one in published_sets().values():
        assert one.source.startswith("https://")
        assert one.citation
        assert one.terms
        assert one.get
        assert one.scale[0] < one.scale[1]
        assert one.expected["stimuli"] > 0
        assert one.scenario in ("fr", "nr", "difference")


def test_traps_are_recorded() -> None:
    """Polarity, unit and kind of SD, where a column's name misleads."""
    sets = published_sets()
    lower = {name for name, one in sets.items() if one.polarity == "lower_better"}
    assert lower == {"LIVE", "CSIQ", "SPCD"}
    assert {n for n, one in sets.items() if one.sd_kind == "of_the_mean"} == {"LIVE", "TID2013"}
    assert sets["TQD"].sd_kind == "none"
    assert sets["KonIQ-10k"].sd_factor == 24.75


# --- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True], ids=["own folder", "folder of sets"])
@pytest.mark.parametrize("name", ROWS)
def test_small_tree(tmp_path: Path, cache: Path, name: str, nested: bool) -> None:
    folder = plant(tmp_path / "data" / name.lower(), name)
    loaded = load_dataset(name, folder.parent if nested else folder, cache_dir=cache)
    published = find_published(name)
    files = ROWS[name][2]
    assert (loaded.scale, loaded.polarity) == (published.scale, published.polarity)
    assert loaded.attribute == published.attribute
    assert len(loaded) == len(files)
    for stimulus, (image, reference) in zip(loaded.stimuli, files, strict=True):
        for path, planted in ((stimulus.path, image), (stimulus.reference, reference)):
            if planted is None:
                assert path is None
            elif planted.lower().endswith(".bmp"):
                same = PIL.Image.open(path).tobytes() == PIL.Image.open(folder / planted).tobytes()
                assert same
            else:
                assert path == folder / planted
    assert any(f"{len(files)} of {published.expected['stimuli']:,}" in n for n in loaded.notes)


def test_sets_beside_one_another(tmp_path: Path, cache: Path) -> None:
    """Two sets with a data.csv and a dmos.csv each do not get in one another's way."""
    for name in ROWS:
        plant(tmp_path / "data" / f"my {name}", name)
    (tmp_path / "data" / "mine").mkdir()
    (tmp_path / "data" / "mine" / "dmos.csv").write_text("image,mos\na.png,3\n")
    (tmp_path / "data" / "mine" / "data.csv").write_text("name,mos_quality,std_quality\nx,1,1\n")
    for name in ROWS:
        loaded = load_dataset(name, tmp_path / "data", cache_dir=cache)
        assert loaded.name == name
        assert len(loaded) == len(ROWS[name][2])


def test_kadid_sd_is_taken_as_it_is(tmp_path: Path, cache: Path) -> None:
    loaded = load_dataset("FR-KADID", plant(tmp_path / "kadid10k", "FR-KADID"), cache_dir=cache)
    assert [s.opinion_sd for s in loaded.stimuli] == [0.496, 0.869, 0.789, 0.772]
    assert loaded.quality[0] == pytest.approx(100 * 3.57 / 4)


def test_kadid_without_references(tmp_path: Path, cache: Path) -> None:
    loaded = load_dataset("NR-KADID", plant(tmp_path / "kadid10k", "FR-KADID"), cache_dir=cache)
    assert [s.reference for s in loaded.stimuli] == [None] * 4
    assert loaded.mos.tolist() == [4.57, 4.33, 2.67, 2.07]


def test_augmented_references_are_made(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    loaded = load_dataset("Aug-KADID", folder, cache_dir=cache)
    names = [s.reference.name for s in loaded.stimuli]
    assert names == ["I01_aug.png", "I01_aug.png", "I01_aug.png", "I02_aug.png"]
    assert loaded.stimuli[0].path == folder / "images" / "I01_01_01.png"
    assert any("not ratings of these pairs" in note for note in loaded.notes)
    again = load_dataset("Aug-KADID", folder, cache_dir=tmp_path / "other cache")
    assert again.manifest == loaded.manifest


@pytest.mark.parametrize("place", ["kadid10k/images", "kadid10k/aug", "Aug-KADID", "TQD/Aug"])
def test_augmented_references_of_the_authors(tmp_path: Path, cache: Path, place: str) -> None:
    """Inside KADID-10k's folder or beside it; one that is lacking there is made."""
    plant(tmp_path / "kadid10k", "FR-KADID")
    for content in ("I01", "I02"):
        paint(tmp_path / place / f"{content}_aug.png")
    loaded = load_dataset("Aug-KADID", tmp_path, cache_dir=cache)
    assert loaded.stimuli[0].reference == tmp_path / place / "I01_aug.png"
    assert not cache.exists()
    assert not any("transformed" in note for note in loaded.notes)
    (tmp_path / place / "I02_aug.png").unlink()
    loaded = load_dataset("Aug-KADID", tmp_path, cache_dir=cache)
    assert loaded.stimuli[-1].reference.is_relative_to(cache)
    assert any("transformed" in note for note in loaded.notes)


def test_color_difference_is_about_pairs(tmp_path: Path, cache: Path) -> None:
    """The first image is the reference; a larger score is a worse match."""
    loaded = load_dataset("SPCD", plant(tmp_path / "spcd", "SPCD"), cache_dir=cache)
    first, second = loaded.stimuli
    assert first.path == second.path
    assert (first.reference.name, second.reference.name) == ("I0001_01_03.png", "I0001_01_02.png")
    assert loaded.mos[0] < loaded.mos[1]
    assert loaded.quality[0] > loaded.quality[1]


def test_public_third_of_spcd(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "CDNet", "SPCD")
    (folder / "SPCD_mos_std.txt").unlink()
    (folder / "data").mkdir()
    (folder / "data" / "train_data.csv").write_text(
        "image1,image2,score\nI0001_01_03.png,I0001_01_06.png,3.34756726\n"
        "I0001_01_02.png,I0001_01_06.png,3.700477483\n"
    )
    shutil.move(folder / "images", folder / "data" / "images")
    loaded = load_dataset("SPCD", folder, cache_dir=cache)
    assert loaded.mos.tolist() == [3.34756726, 3.700477483]
    assert loaded.sd_kind == "none"
    assert any("2 of 10,000" in note for note in loaded.notes)


def test_spaq_spreadsheet(tmp_path: Path, cache: Path) -> None:
    """As it is published; the table has no SD, so the set has none."""
    folder = plant(tmp_path / "SPAQ", "SPAQ")
    (folder / "SPAQ_mos_std.txt").unlink()
    (folder / "Annotations").mkdir()
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS", "Brightness", "Colorfulness"])
    book.active.append(["00001.jpg", 48.86, 50, 60])
    book.active.append(["00002.jpg", 62.5, 50, 60])
    book.save(folder / "Annotations" / "MOS and Image attribute scores.xlsx")
    loaded = load_dataset("SPAQ", folder, cache_dir=cache)
    assert loaded.mos.tolist() == [48.86, 62.5]
    assert loaded.sd_kind == "none"
    assert loaded.stimuli[0].path == folder / "TestImage" / "00001.jpg"


def test_tid2013_sd_stands_in_a_file_beside(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "tid2013", "TID2013")
    assert load_dataset("TID2013", folder, cache_dir=cache).sd_kind == "none"
    (folder / "mos_std.txt").write_text("0.13013\n0.16008\n")
    loaded = load_dataset("TID2013", folder, cache_dir=cache)
    assert [s.opinion_sd for s in loaded.stimuli] == [0.13013, 0.16008]
    assert loaded.sd_kind == "of_the_mean"
    (folder / "mos_std.txt").write_text("0.13013\n")
    with pytest.raises(StimulusError, match=r"mos_std\.txt has 1 rows, mos_with_names\.txt has 2"):
        load_dataset("TID2013", folder, cache_dir=cache)


def test_koniq_sd_in_the_unit_of_its_mos(tmp_path: Path, cache: Path) -> None:
    loaded = load_dataset("KonIQ-10k", plant(tmp_path / "koniq", "KonIQ-10k"), cache_dir=cache)
    assert loaded.stimuli[0].opinion_sd == pytest.approx(0.527277894494 * 99 / 4)
    assert any("x 24.75" in note for note in loaded.notes)


def test_koniq_first_release_has_its_mos_in_another_column(tmp_path: Path, cache: Path) -> None:
    """Its MOS is on 1..5, its MOS_zscore on 1..100."""
    folder = plant(tmp_path / "koniq", "KonIQ-10k")
    (folder / "koniq10k_distributions_sets.csv").unlink()
    (folder / "koniq10k_scores_and_distributions.csv").write_text(
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
        '"10004473376.jpg",0,0,25,73,7,105,3.829,0.5273,77.38362\n'
        '"10007357496.jpg",0,3,45,47,1,96,3.479,0.5800,68.72857\n'
    )
    loaded = load_dataset("KonIQ-10k", folder, cache_dir=cache)
    assert loaded.mos.tolist() == [77.38362, 68.72857]


def test_live_as_published(tmp_path: Path, cache: Path) -> None:
    """MATLAB files; undistorted copies (orgs) are left out; each folder is numbered from 1."""
    folder = tmp_path / "databaserelease2"
    orgs, dmos = np.ones(982), np.zeros(982)
    names = np.array(["monarch.bmp"] * 982, dtype=object)
    for k, score in ((1, 15.5), (227, 40.0), (981, 60.0)):  # jp2k/img2, jpeg/img1, fastfading/174
        orgs[k], dmos[k] = 0, score
        names[k] = "rapids.bmp"
    folder.mkdir()
    savemat(
        folder / "dmos_realigned.mat",
        {"dmos_new": dmos[None], "dmos_std": dmos[None] / 20, "orgs": orgs[None]},
    )
    savemat(folder / "refnames_all.mat", {"refnames_all": names[None]})
    images = ("jp2k/img2.bmp", "jpeg/img1.bmp", "fastfading/img174.bmp", "refimgs/rapids.bmp")
    for image in images:
        paint(folder / image)
    found = locate(find_published("LIVE"), folder)
    assert [entry.image for entry in entries(found)] == list(images[:3])
    loaded = load_dataset("LIVE", folder, cache_dir=cache)
    assert loaded.mos.tolist() == [15.5, 40.0, 60.0]
    assert loaded.quality[0] > loaded.quality[2]
    assert loaded.sd_kind == "of_the_mean"
    (folder / "refnames_all.mat").unlink()
    with pytest.raises(StimulusError, match=r"refnames_all\.mat cannot be read"):
        load_dataset("LIVE", folder, cache_dir=cache)


@pytest.mark.parametrize("column", ["mos", "dmos"])
def test_pyiqa_list_of_live_holds_dmos_whatever_its_header_says(
    tmp_path: Path, cache: Path, column: str
) -> None:
    plant(tmp_path / "LIVEIQA_release2", "LIVE")
    (tmp_path / "LIVEIQA_release2" / "LIVE2.DMOS.csv").unlink()
    (tmp_path / "meta_info").mkdir()
    (tmp_path / "meta_info" / "meta_info_LIVEIQADataset.csv").write_text(
        f"ref_name,dist_name,{column}\n"
        "refimgs/studentsculpture.bmp,jp2k/img2.bmp,15.51\nrefimgs/rapids.bmp,jp2k/img3.bmp,24.1\n"
    )
    loaded = load_dataset("LIVE", tmp_path, cache_dir=cache)
    assert loaded.polarity == "lower_better"
    assert loaded.sd_kind == "none"
    assert len(loaded) == 2


PYIQA = {
    "FR-KADID": (
        "kadid10k",
        "meta_info_KADID10kDataset.csv",
        "ref_name,dist_name,dmos,std\nI01.png,I01_01_01.png,4.57,0.496\n"
        "I01.png,I01_01_02.png,4.33,0.869\n",
    ),
    "TID2013": (
        "tid2013",
        "meta_info_TID2013Dataset.csv",
        "ref_name,dist_name,mos,std\nI01.BMP,I01_01_1.bmp,5.51429,0.13013\n"
        "I01.BMP,I01_01_2.bmp,5.56757,0.16008\n",
    ),
    "CSIQ": (
        "CSIQ",
        "meta_info_CSIQDataset.csv",
        "ref_name,dist_name,dmos\n1600.png,1600.AWGN.1.png,0.061989\n"
        "1600.png,1600.JPEG.2.png,0.069148\n",
    ),
    "SPAQ": (
        "SPAQ",
        "meta_info_SPAQDataset.csv",
        "Image name,MOS,Brightness\n00001.jpg,48.86,1\n00002.jpg,62.5,2\n",
    ),
    "KonIQ-10k": (
        "koniq10k",
        "meta_info_KonIQ10kDataset.csv",
        "img_name,mos,std,split,c1\n10004473376.jpg,77.38,0.527,train,0\n"
        "10007357496.jpg,68.7,0.58,test,0\n",
    ),
}


@pytest.mark.parametrize("name", PYIQA)
def test_pyiqa_list_and_folder(tmp_path: Path, cache: Path, name: str) -> None:
    """pyiqa keeps its lists in a folder of their own beside the sets."""
    folder, file, text = PYIQA[name]
    plant(tmp_path / folder, name)
    (tmp_path / folder / ROWS[name][0]).unlink()
    (tmp_path / "meta_info").mkdir()
    (tmp_path / "meta_info" / file).write_text(text)
    loaded = load_dataset(name, tmp_path, cache_dir=cache)
    assert len(loaded) == 2
    assert loaded.has_references == (find_published(name).scenario == "fr")
    assert loaded.polarity == find_published(name).polarity


def test_liqe_list_is_reversed(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "csiq", "CSIQ")
    (folder / "csiq.DMOS.csv").unlink()
    (folder / "csiq_all.txt").write_text(
        "dst_imgs/awgn/1600.AWGN.1.png\t0.938\t0.061\ndst_imgs/jpeg/1600.JPEG.2.png\t0.931\t0.063\n"
    )
    loaded = load_dataset("CSIQ", folder, cache_dir=cache)
    assert loaded.polarity == "higher_better"
    assert loaded.opinion == "1 - DMOS"
    assert loaded.stimuli[0].reference == folder / "src_imgs" / "1600.png"


# --- partial, damaged and wrong ------------------------------------------------------------------


def test_partial_set_says_what_it_lacks(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    (folder / "images" / "I01_01_02.png").unlink()
    loaded = load_dataset("FR-KADID", folder, cache_dir=cache)
    assert len(loaded) == 3
    assert "3 of 4 images present" in loaded.notes
    with pytest.raises(StimulusError, match=r"not whole: .*I01_01_02\.png is absent"):
        load_dataset("FR-KADID", folder, whole=True, cache_dir=cache)


def test_absent_reference_takes_its_stimuli_along(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    (folder / "images" / "I01.png").unlink()
    found = read(locate(find_published("FR-KADID"), folder))
    assert [row.path.name for row in found.rows] == ["I02_01_03.png"]
    assert all("reference I01.png is absent" in message for message in found.absent)
    assert len(load_dataset("NR-KADID", folder, cache_dir=cache)) == 4


def test_table_without_images(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    shutil.rmtree(folder / "images")
    with pytest.raises(StimulusError, match=r"none of its 4 images .*expected them in images/"):
        load_dataset("FR-KADID", folder, cache_dir=cache)


def test_damaged_image_is_an_error_never_a_smaller_set(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    path = folder / "images" / "I01_01_02.png"
    for data, why in ((b"", "empty"), (path.read_bytes()[:-30], "not a whole image")):
        path.write_bytes(data)
        with pytest.raises(StimulusError, match=rf"row 3: .*{why}"):
            load_dataset("FR-KADID", folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("dist_img", "distorted", "no column .*dist_img"),
        ("4.33", "5.01", r"row 3: score 5\.01 .* outside the scale 1..5"),
        ("4.33", "n/a", r"row 3: score 'n/a' is not a number"),
        ("0.869", "-0.869", "row 3: opinion SD -0.869"),
        ("I01_01_02.png", "I01_01_01.png", "row 3: .* was rated before"),
        ("I01_01_02.png", "i01_01_01.PNG", "row 3: .* was rated before"),
        ("I01_01_02.png", "../I01_01_02.png", "row 3: the name '../I01_01_02.png' leads outside"),
        ("I01.png,4.33", "/etc/I01.png,4.33", "row 3: the name '/etc/I01.png' leads outside"),
        (",4.33,0.869", "", "row 3: 2 fields where 4"),
    ],
)
def test_damaged_tables(tmp_path: Path, cache: Path, old: str, new: str, why: str) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    table = folder / "dmos.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(StimulusError, match=why):
        load_dataset("FR-KADID", folder, cache_dir=cache)


def test_wrong_folders(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "holiday").mkdir()
    paint(tmp_path / "holiday" / "beach.png")
    with pytest.raises(StimuliAbsent, match=r"FR-KADID was not found under .*: download KADID"):
        load_dataset("FR-KADID", tmp_path, cache_dir=cache)
    with pytest.raises(UsageError, match="is not a folder"):
        load_dataset("FR-KADID", tmp_path / "gone", cache_dir=cache)
    with pytest.raises(UsageError, match=r"unknown data set .*Did you mean 'FR-KADID'"):
        load_dataset("FR-KADIT", tmp_path, cache_dir=cache)
    with pytest.raises(StimuliAbsent, match="download KADID-10k"):
        load_dataset("FR-KADID")


def test_linked_table_outside_is_not_read(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "data" / "kadid10k", "FR-KADID")
    (tmp_path / "secret").write_text("root:x:0:0\n")
    (folder / "dmos.csv").unlink()
    (folder / "dmos.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(StimulusError, match=r"is a link to .*secret, outside") as caught:
        load_dataset("FR-KADID", folder, cache_dir=cache)
    assert "root:x" not in str(caught.value)


def test_renamed_columns_in_a_folder_of_another_name(tmp_path: Path, cache: Path) -> None:
    """It may be another table called dmos.csv: the set is absent, and the message says why."""
    folder = plant(tmp_path / "mine", "FR-KADID")
    table = folder / "dmos.csv"
    table.write_text(table.read_text().replace("dist_img", "distorted"))
    with pytest.raises(StimuliAbsent, match=r"download KADID-10k .*no column 'dist_img'"):
        load_dataset("FR-KADID", folder, cache_dir=cache)


def test_column_that_is_there_twice(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    table = folder / "dmos.csv"
    table.write_text(table.read_text().replace(",var", ",dmos"))
    with pytest.raises(StimulusError, match="no column 'var'"):
        load_dataset("FR-KADID", folder, cache_dir=cache)
    table.write_text("dmos,dist_img,ref_img,dmos,var\n1,I01_01_01.png,I01.png,2,0.5\n")
    with pytest.raises(StimulusError, match="2 columns are called 'dmos'"):
        load_dataset("FR-KADID", folder, cache_dir=cache)


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_any_damage_is_refused_in_our_own_words(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    """Bytes of a table are cut out or replaced: it loads, or a StimulusError says what is wrong."""
    folder = tmp_path_factory.getbasetemp() / "damaged" / find_published(name).folders[0]
    table = plant(folder, name) / ROWS[name][0]
    text = table.read_bytes()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    junk = data.draw(
        st.sampled_from([b"", b"\0", b"../", b"\xff", b",", b'"', b"\n", b"-", b"9e9"])
    )
    table.write_bytes(text[:start] + junk + text[end:])
    try:
        loaded = load_dataset(name, folder, cache_dir=folder / "cache")
    except StimulusError:
        return
    assert all(loaded.scale[0] <= score <= loaded.scale[1] for score in loaded.mos)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dmos_new": np.zeros((1, 3))}, r"dmos_new holds \(1, 3\), expected 982"),
        ({"dmos_std": None}, "dmos_std holds nothing"),
        ({"dmos_new": np.full((1, 982), np.nan)}, "image 1: score is nan"),
    ],
)
def test_damaged_matlab_files(tmp_path: Path, cache: Path, change: dict, why: str) -> None:
    content = {name: np.zeros((1, 982)) for name in ("dmos_new", "dmos_std", "orgs")} | change
    savemat(tmp_path / "dmos_realigned.mat", {k: v for k, v in content.items() if v is not None})
    names = np.array(["rapids.bmp"] * 982, dtype=object)
    savemat(tmp_path / "refnames_all.mat", {"refnames_all": names[None]})
    with pytest.raises(StimulusError, match=why):
        load_dataset("LIVE", tmp_path, cache_dir=cache)


def test_linked_images_outside_are_refused(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    shutil.move(folder / "images", tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StimulusError, match="outside the set's folder"):
        load_dataset("FR-KADID", folder, cache_dir=cache)


# --- what is at hand -----------------------------------------------------------------------------


def surveyed(root: Path, name: str, **options: bool):
    (one,) = survey(root, names=[name], **options)
    return one


def test_survey_counts_every_fault(tmp_path: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    table = folder / "dmos.csv"
    table.write_text(table.read_text().replace("2.67", "9.99") + "I01_01_01.png,I01.png,4.5,0.5\n")
    (folder / "images" / "I01_01_02.png").write_bytes(b"")
    (folder / "images" / "I02_01_03.png").unlink()
    one = surveyed(tmp_path, "FR-KADID")
    assert (one.n_expected, one.n_rows, one.n_present) == (10_125, 5, 4)
    assert len(one.absent) == len(one.damaged) == len(one.out_of_range) == len(one.twice) == 1
    assert "empty (0 bytes)" in one.damaged[0]
    assert not one.whole
    text = "\n".join(survey_lines([one]))
    assert "NOT WHOLE: 4 of 10,125 stimuli, 1 absent, 1 damaged images" in text


def test_survey_goes_on_after_an_unusable_set(tmp_path: Path) -> None:
    plant(tmp_path / "spcd", "SPCD")
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    (folder / "dmos.csv").write_text("distorted,reference\n")
    found = {one.published.name: one for one in survey(tmp_path)}
    assert "no column" in found["FR-KADID"].trouble
    assert found["SPCD"].n_present == 2
    assert found["TQD"].found is None
    assert "TQD        not found: download TQD" in "\n".join(survey_lines(found.values()))


def test_survey_decodes_when_asked(tmp_path: Path) -> None:
    folder = plant(tmp_path / "kadid10k", "FR-KADID")
    path = folder / "images" / "I01_01_02.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert not surveyed(folder, "FR-KADID").damaged
    assert len(surveyed(folder, "FR-KADID", deep=True).damaged) == 1


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path / "tqd", "TQD")
    assert main([str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "TQD        NOT WHOLE: 2 of 150 stimuli" in shown.out
    assert shown.err == ""
    assert main([str(tmp_path), "--sets", "SPAQ"]) == 2
    assert main([str(tmp_path / "gone")]) == 2


def test_list_of_sets(tmp_path: Path) -> None:
    plant(tmp_path / "tqd", "TQD")
    lines = {line.split()[0]: line for line in list_sets(tmp_path)}
    assert str(tmp_path) in lines["TQD"]
    assert "download SPAQ" in lines["SPAQ"]
    assert "built in" in lines["builtin"]


# --- cells ---------------------------------------------------------------------------------------


def kadid_like(folder: Path, n_contents: int, n_types: int = 5) -> Path:
    """KADID's names with made-up scores."""
    lines = ["dist_img,ref_img,dmos,var"]
    for content in range(1, n_contents + 1):
        paint(folder / "images" / f"I{content:02d}.png")
        for kind in range(1, n_types + 1):
            for level in range(1, 6):
                name = f"I{content:02d}_{kind:02d}_{level:02d}.png"
                paint(folder / "images" / name)
                score = 1 + 4 * ((content * 31 + kind * 17 + level * 7) % 97) / 97
                lines.append(f"{name},I{content:02d}.png,{score:.2f},0.5")
    (folder / "dmos.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def kadid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kadid_like(tmp_path_factory.mktemp("kadid10k"), 18)


def test_quick_and_full_cells(kadid: Path, cache: Path) -> None:
    for full, n_references, per_reference in ((False, 5, 6), (True, 15, 10)):
        source = StimulusSource(cache, data=kadid, full=full)
        cell = stimuli_for("FR-KADID", "fr", source)
        counts = Counter(s.reference.name for s in cell.stimuli)
        assert list(counts.values()) == [per_reference] * n_references
        shown = {s.reference for s in cell.stimuli} | {s.path for s in cell.stimuli}
        assert len(cell.exemplars) == 4
        assert len({s.reference for s in cell.exemplars}) == 1
        assert not shown & {p for s in cell.exemplars for p in (s.path, s.reference)}
        assert len(stimuli_for("NR-KADID", "nr", source)) == 30 * (5 if full else 1)


def test_same_stimuli_for_both_kinds_of_reference(kadid: Path, cache: Path) -> None:
    """FR-KADID and Aug-KADID ask about the same distorted images, as in the paper."""
    source = StimulusSource(cache, data=kadid, seed=3)
    plain, moved = (stimuli_for(n, "fr", source) for n in ("FR-KADID", "Aug-KADID"))
    assert [s.path for s in plain.stimuli] == [s.path for s in moved.stimuli]
    assert {s.reference.name for s in moved.stimuli} == {
        s.reference.name.replace(".", "_aug.") for s in plain.stimuli
    }


def test_seed_draws_the_references(kadid: Path, cache: Path) -> None:
    def drawn(seed: int) -> set[Path]:
        source = StimulusSource(cache, data=kadid, seed=seed)
        return {s.reference for s in stimuli_for("FR-KADID", "fr", source).stimuli}

    assert drawn(0) == drawn(0) != drawn(1)


def test_only_chosen_images_are_opened(kadid: Path, cache: Path, tmp_path: Path) -> None:
    """A damaged image that is not asked about does no harm; one that is, is named."""
    folder = shutil.copytree(kadid, tmp_path / "kadid10k")
    source = StimulusSource(cache, data=folder)
    cell = stimuli_for("NR-KADID", "nr", source)
    chosen = {s.path for s in (*cell.stimuli, *cell.exemplars)}
    spare = next(p for p in sorted((folder / "images").iterdir()) if p not in chosen)
    spare.write_bytes(b"")
    assert stimuli_for("NR-KADID", "nr", source).manifest == cell.manifest
    cell.stimuli[0].path.write_bytes(b"")
    with pytest.raises(StimulusError, match="empty"):
        stimuli_for("NR-KADID", "nr", source)


def test_set_that_is_tested_whole_holds_out_exemplars_first(tmp_path: Path, cache: Path) -> None:
    """TQD's size: 10 references of 15; four are exemplars and 146 remain."""
    lines = []
    for content in range(10):
        paint(tmp_path / "tqd" / "images" / f"{content}-0.png")
        for k in range(1, 16):
            paint(tmp_path / "tqd" / "images" / f"{content}-{k}.png")
            score = (content * 7 + k * 11) % 101 / 101
            lines.append(f"images/{content}-0.png\timages/{content}-{k}.png\t{score:.5f}")
    (tmp_path / "tqd" / "TQD_mos.txt").write_text("\n".join(lines))
    cell = stimuli_for("TQD", "fr", StimulusSource(cache, data=tmp_path, full=True))
    assert len(cell.exemplars) == 4
    assert len(cell) == 146
    assert not {s.path for s in cell.exemplars} & {s.path for s in cell.stimuli}


@pytest.mark.parametrize("limit", [2, 7, 12, 60])
def test_limit(kadid: Path, cache: Path, limit: int) -> None:
    source = StimulusSource(cache, data=kadid, limit=limit)
    assert len(stimuli_for("NR-KADID", "nr", source)) == limit
    assert 2 <= len(stimuli_for("FR-KADID", "fr", source)) <= limit


def test_absent_set_skips_and_says_what_to_get(cache: Path, kadid: Path) -> None:
    for source in (StimulusSource(cache), StimulusSource(cache, data=kadid)):
        with pytest.raises(StimuliAbsent, match="download SPAQ"):
            stimuli_for("SPAQ", "nr", source)


def test_which_sets_a_run_judges(tmp_path: Path, cache: Path) -> None:
    paper = ["FR-KADID", "Aug-KADID", "TQD"]
    assert names_for("fr", StimulusSource(cache))[-3:] == paper
    plant(tmp_path / "tid2013", "TID2013")
    found = names_for("fr", StimulusSource(cache, data=tmp_path))
    assert found[-4:] == [*paper, "TID2013"]
    chosen = StimulusSource(cache, data=tmp_path, sets=("TID2013", "builtin", "SPAQ"))
    assert names_for("fr", chosen) == ["builtin", "TID2013"]
    assert names_for("nr", chosen) == ["builtin", "SPAQ"]
    assert names_for("difference", chosen) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sets": ("KADID",)}, "unknown stimulus set 'KADID'"),
        ({"sets": ("SPAQ",)}, "SPAQ needs its files: .*--iqa-data"),
        ({"selections": ("no.txt",)}, r"there is no no\.txt"),
        ({"selections": ("KADIX=no.txt",)}, "unknown data set 'KADIX'"),
    ],
)
def test_mistakes_are_found_before_the_run(cache: Path, given: dict, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_source(StimulusSource(cache, **given))


def test_wrong_data_folder_is_found_before_the_run(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="no published data set was found"):
        check_source(StimulusSource(cache, data=tmp_path))
    plant(tmp_path / "tqd", "TQD")
    check_source(StimulusSource(cache, data=tmp_path))
    with pytest.raises(StimuliAbsent, match="SPAQ was not found"):
        check_source(StimulusSource(cache, data=tmp_path, sets=("TQD", "SPAQ")))


# --- lists of others -----------------------------------------------------------------------------


def test_list_is_followed(kadid: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "FR_KADID_sampled_uniform.txt"
    file.write_text(
        "# a comment\nI12.png I12_01_05.png 2.5445\n"
        "I12.png,I12_05_03.png\nI02.png\tI02_03_01.png 1\n"
    )
    source = StimulusSource(cache, data=kadid, selections=(str(file),))
    cell = stimuli_for("FR-KADID", "fr", source)
    assert [s.path.stem for s in cell.stimuli] == ["I12_01_05", "I12_05_03", "I02_03_01"]
    assert cell.exemplars[0].reference.name not in ("I12.png", "I02.png")
    assert "3 of 450 stimuli: the list FR_KADID_sampled_uniform.txt" in cell.notes
    same = StimulusSource(cache, data=kadid, selections=(f"NR-KADID={file}",))
    assert len(stimuli_for("NR-KADID", "nr", same)) == 3


def test_augmented_names_in_a_list(kadid: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "AUG_KADID_sampled_difficult.txt"
    file.write_text("I12_aug.png I12_01_05.png 0.9\nI12_aug.png I12_05_03.png 0.3\n")
    source = StimulusSource(cache, data=kadid, selections=(str(tmp_path),))
    cell = stimuli_for("Aug-KADID", "fr", source)
    assert [s.reference.name for s in cell.stimuli] == ["I12_aug.png"] * 2


def test_list_of_another_set(kadid: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("I12.png I12_24_05.png\n")
    source = StimulusSource(cache, data=kadid, selections=(f"FR-KADID={file}",))
    with pytest.raises(
        StimulusError, match=r"names 1 stimuli .*i12_24_05\.png.*a list for FR-KADI"
    ):
        stimuli_for("FR-KADID", "fr", source)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "a.png b.png c.png\n", "1.5\n"])
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(StimulusError):
        read_selection(tmp_path / "list.txt")


def test_two_lists_for_one_set(tmp_path: Path) -> None:
    for kind in ("uniform", "difficult"):
        (tmp_path / f"AGIQA3K_sampled_{kind}.txt").write_text("a.jpg 1\n")
    with pytest.raises(UsageError, match="several lists"):
        selection_file("AGIQA-3K", [str(tmp_path)])
    one = selection_file("AGIQA-3K", [str(tmp_path / "AGIQA3K_sampled_uniform.txt")])
    assert one == tmp_path / "AGIQA3K_sampled_uniform.txt"
    assert selection_file("SPAQ", [str(one)]) is None


# --- the real tables -----------------------------------------------------------------------------


def whole_table(scores: Path, name: str, file: str) -> list[Entry]:
    published = find_published(name)
    form = next(form for form in published.tables if form.file == file)
    table = next(scores.rglob(file))
    return list(entries(Found(published, table.parent, table, form)))


REAL_TABLES = [
    ("FR-KADID", "kadid10k.DMOS.csv", 10_125, 1.0, 4.93),
    ("TQD", "TQD_mos.txt", 150, 0.391, 0.887),
    ("SPCD", "SPCD_mos_std.txt", 30_000, 0.928, 16.222),
    ("SPAQ", "SPAQ_mos_std.txt", 11_125, 2, 96),
    ("AGIQA-3K", "agiqa3k_data.csv", 2_982, 0, 4.489),
    ("AGIQA-3K", "AGIQA3K_mos_std.txt", 2_982, 0, 4.489),
    ("TID2013", "TID2013.MOS.csv", 3_000, 0.242, 7.214),
    ("CSIQ", "csiq.DMOS.csv", 866, 0, 1),
    ("LIVE", "LIVE2.DMOS.csv", 779, -2.640, 111.775),
    ("KonIQ-10k", "koniq10k_distributions_sets.csv", 10_073, 3.912, 88.389),
]


@pytest.mark.parametrize(("name", "file", "n", "low", "high"), REAL_TABLES)
def test_whole_tables(scores: Path, name: str, file: str, n: int, low: float, high: float) -> None:
    published = find_published(name)
    rows = whole_table(scores, name, file)
    mos = [row.mos for row in rows]
    assert len(rows) == n == published.expected["stimuli"]
    assert (min(mos), max(mos)) == pytest.approx((low, high), abs=1e-3)
    assert published.scale[0] <= min(mos)
    assert max(mos) <= published.scale[1]
    assert len({(row.image.casefold(), row.reference) for row in rows}) == n
    if published.scenario == "fr":
        n_references = len({row.reference.casefold() for row in rows})
        assert n_references == published.expected["references"]


def test_reversed_tables_agree_with_the_published_ones(scores: Path) -> None:
    """LIQE's LIVE is 111.7747 - DMOS."""
    published = {e.image: e.mos for e in whole_table(scores, "LIVE", "LIVE2.DMOS.csv")}
    for row in whole_table(scores, "LIVE", "live_all.txt"):
        assert row.mos == pytest.approx(111.7747 - published[row.image], abs=1e-3)


def test_kadid_sds_are_those_of_30_ratings(scores: Path) -> None:
    """Squared once, the sums of squares of 30 ratings are whole numbers; squared twice, not."""
    rows = whole_table(scores, "FR-KADID", "kadid10k.DMOS.csv")
    mean, sd = np.array([(row.mos, row.opinion_sd) for row in rows]).T
    total = np.round(30 * mean)
    usable = np.abs(total / 30 - mean) < 0.0051

    def whole(variance: np.ndarray, slack: np.ndarray) -> float:
        squares = 30 * variance + total**2 / 30
        return float(np.mean(np.abs(squares - np.round(squares))[usable] <= slack[usable]))

    assert whole(sd**2, 30 * 2 * sd * 0.0005 + 1e-9) > 0.9
    assert whole(sd, np.full_like(sd, 30 * 0.0005)) < 0.2


SHIPPED = [
    ("SPAQ", "SPAQ_mos_std.txt", "SPAQ", 48, 18),
    ("AGIQA-3K", "agiqa3k_data.csv", "AGIQA3K", 150, 30),
    ("NR-KADID", "kadid10k.DMOS.csv", "NR_KADID", 150, 2),
    ("SPCD", "SPCD_mos_std.txt", "SPCD", 150, 150),
    ("FR-KADID", "kadid10k.DMOS.csv", "FR_KADID", 101, 52),
    ("Aug-KADID", "kadid10k.DMOS.csv", "AUG_KADID", 101, 52),
]


@pytest.mark.parametrize(("name", "file", "prefix", "n_same", "n_determined"), SHIPPED)
def test_uniform_selection_is_that_of_the_released_lists(
    scores: Path, name: str, file: str, prefix: str, n_same: int, n_determined: int
) -> None:
    """Every score of the list comes out; and every stimulus whose score no other one shares.

    Equal scores leave a choice that the released code does not state: ``n_same`` of 150 stimuli
    are nevertheless the same.
    """
    rows = whole_table(scores, name, file)
    listed = read_selection(scores / "mllms_for_iqa" / f"{prefix}_sampled_uniform.txt")
    paired = len(listed[0]) == 2
    keys = [
        ((row.reference.casefold(),) if paired else ()) + (row.image.casefold(),) for row in rows
    ]
    position = {key: k for k, key in enumerate(keys)}
    given = [position[key] for key in listed]
    mos = np.array([row.mos for row in rows])
    group = [row.reference if find_published(name).scenario == "fr" else "" for row in rows]
    chosen = uniform_positions(rows, mos, group, {key[0] for key in listed})
    assert scores_of(chosen, mos, group) == scores_of(given, mos, group)
    alone = scores_of(range(len(rows)), mos, group)
    determined = {k for k in given if alone[group[k], mos[k]] == 1}
    assert len(determined) == n_determined
    assert determined <= set(chosen)
    assert len(set(chosen) & set(given)) == n_same


def uniform_positions(
    rows: list[Entry], mos: np.ndarray, group: list[str], references: Iterable[str]
) -> list[int]:
    if not any(group):
        names = [f"{row.reference} {row.image}" for row in rows]
        return [int(k) for k in select_uniform(mos, 150, names)]
    pool = [k for k, name in enumerate(group) if name.casefold() in references]
    names = [rows[k].image for k in pool]
    picks = select_uniform_by_reference(mos[pool], [group[k] for k in pool], 15, 10, names, seed=0)
    return [pool[k] for k in picks]


def scores_of(
    positions: Iterable[int], mos: np.ndarray, group: list[str]
) -> Counter[tuple[str, float]]:
    return Counter((group[k], float(mos[k])) for k in positions)


def test_every_released_list_names_stimuli_of_its_set(scores: Path) -> None:
    tables = {"AUG_KADID": "FR-KADID", "FR_KADID": "FR-KADID", "NR_KADID": "NR-KADID"}
    files = {"FR-KADID": "kadid10k.DMOS.csv", "NR-KADID": "kadid10k.DMOS.csv"}
    for file in sorted((scores / "mllms_for_iqa").glob("*_sampled_*.txt")):
        prefix = file.name.partition("_sampled")[0]
        name = tables.get(prefix, "AGIQA-3K" if prefix == "AGIQA3K" else prefix)
        rows = whole_table(scores, name, files.get(name, f"{prefix}_mos_std.txt"))
        known = {(row.image.casefold(),) for row in rows}
        known |= {((row.reference or "").casefold(), row.image.casefold()) for row in rows}
        listed = read_selection(file)
        assert len(listed) == 150
        assert set(listed) <= known


@pytest.mark.parametrize(("name", "file", "n", "low", "high"), REAL_TABLES)
def test_real_names_and_scores_with_generated_pixels(
    scores: Path,
    tmp_path: Path,
    cache: Path,
    name: str,
    file: str,
    n: int,
    low: float,
    high: float,
) -> None:
    """The whole real table, and images for every 97th of its rows."""
    folder = tmp_path / find_published(name).folders[0]
    folder.mkdir()
    shutil.copy(next(scores.rglob(file)), folder / file)
    places = {"CSIQ": lambda e: f"dst_imgs/{e.image.split('.')[1].lower()}", "LIVE": lambda e: ""}
    where: Callable[[Entry], str] = places.get(name, lambda e: find_published(name).images[0])
    kept = whole_table(scores, name, file)[:: max(1, n // 30)]
    for row in kept:
        paint(folder / where(row) / row.image)
        if row.reference is not None:
            references = find_published(name).references or find_published(name).images
            paint(folder / references[0] / row.reference)
    loaded = load_dataset(name, tmp_path, cache_dir=cache)
    assert [s.mos for s in loaded.stimuli] == [row.mos for row in kept]
    assert f"{len(kept)} of {n:,} images present" in loaded.notes
    assert len(read(locate(find_published(name), folder)).absent) == n - len(kept)


# --- the real images -----------------------------------------------------------------------------


def test_real_scene_of_spcd(rated_data: Path, tmp_path: Path, cache: Path) -> None:
    scene = rated_data / "spcd_scene0249"
    loaded = load_dataset("SPCD", scene, cache_dir=cache)
    assert len(loaded) == 35
    assert len({s.path for s in loaded.stimuli} | {s.reference for s in loaded.stimuli}) == 17
    assert loaded.stimuli[0].image.width == 1024


def test_real_demo_images(rated_data: Path, scores: Path, tmp_path: Path, cache: Path) -> None:
    """Five sets with one or two real images each, beside one another."""
    demo = rated_data / "demo_stimuli" / "images"
    planted = [
        ("TQD_mos.txt", "tqd/images", ["17-0.png", "17-2.png", "17-9.png"]),
        ("kadid10k.DMOS.csv", "kadid10k/images", ["I02_01_03.png"]),
        ("SPAQ_mos_std.txt", "spaq/TestImage", ["SPAQ_10241.jpg"]),
        ("koniq10k_distributions_sets.csv", "koniq10k/1024x768", ["6898804586.jpg"]),
    ]
    expected = {"TQD": 0.77539, "NR-KADID": 2.07, "SPAQ": 36.11, "KonIQ-10k": 32.7133027523}
    for file, folder, images in planted:
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(next(scores.rglob(file)), tmp_path / folder.partition("/")[0] / file)
        for name in images:
            shutil.copy(demo / name, tmp_path / folder / name.removeprefix("SPAQ_"))
    for name, score in expected.items():
        rows = read(locate(find_published(name), tmp_path)).rows
        assert rows[0].mos == pytest.approx(score)
    loaded = load_dataset("TQD", tmp_path, cache_dir=cache)
    assert [s.path.name for s in loaded.stimuli] == ["17-2.png", "17-9.png"]


def test_real_images_of_tid2013(
    rated_data: Path, scores: Path, tmp_path: Path, cache: Path
) -> None:
    """As it ships them: BMP, names in mixed case, scores without names of references."""
    demo = rated_data / "demo_stimuli" / "images"
    folder = tmp_path / "tid2013"
    rows = whole_table(scores, "TID2013", "TID2013.MOS.csv")
    known = {"I03": "i03_11_5.bmp", "I19": "i19_10_5.bmp"}
    for content, name in known.items():
        for source, target in (
            (f"tid2013_dist_{content}.png", f"distorted_images/{name.upper()}"),
            (f"tid2013_ref_{content}.png", f"reference_images/{content}.BMP"),
        ):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.open(demo / source).convert("RGB").save(folder / target, "BMP")
    (folder / "mos_with_names.txt").write_text("".join(f"{r.mos} {r.image}\n" for r in rows))
    (folder / "mos_std.txt").write_text("".join(f"{r.opinion_sd}\n" for r in rows))
    loaded = load_dataset("TID2013", folder, cache_dir=cache)
    assert loaded.mos.tolist() == pytest.approx([0.7, 1.65789])
    assert [s.opinion_sd for s in loaded.stimuli] == [0.09487, 0.15469]
    assert {s.image.mime for s in loaded.stimuli} == {"image/png"}
    assert "BMP files are sent as pixel-identical PNG" in loaded.notes


def test_real_images_of_live(rated_data: Path, scores: Path, tmp_path: Path, cache: Path) -> None:
    """gblur of two contents under LIVE's own names; a stronger blur must score worse."""
    subset = rated_data / "live_fr_subset"
    folder = tmp_path / "live"
    folder.mkdir()
    shutil.copy(next(scores.rglob("LIVE2.DMOS.csv")), folder)
    planted = {}
    for line in (subset / "dmos.csv").read_text().splitlines()[1:]:
        image, reference, kind, ids, dmos = line.split(",")[:5]
        if kind != "gblur" or not image.startswith(("images/gblur__dancers", "images/gblur__mon")):
            continue
        name = reference.removeprefix("images/ref_").replace(".png", ".bmp")
        for source, target in ((image, f"gblur/{ids}"), (reference, f"refimgs/{name}")):
            (folder / target).parent.mkdir(exist_ok=True)
            PIL.Image.open(subset / source).convert("RGB").save(folder / target)
        planted[ids] = float(dmos)
    rows = read(locate(find_published("LIVE"), folder)).rows
    assert {row.path.name: round(row.mos, 4) for row in rows} == planted
    loaded = load_dataset("LIVE", folder, cache_dir=cache)
    assert len(loaded) == len(planted) == 8
    assert np.argmax(loaded.quality) == np.argmin(loaded.mos)
