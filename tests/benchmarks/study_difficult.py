"""Do difficult samples behave as the paper says? On real tables of human scores.

Run ``IQA_CHECKS_RATED_DATA=FOLDER python tests/benchmarks/study_difficult.py``, FOLDER holding
``score_tables`` and ``qbench``. Three questions:

1. Fig. 4: does variance normalisation move the picks to samples that people agree on, and does
   the scale of 0..100 matter? SPAQ and AGIQA-3K, expert = MOS with normal errors of SD 12 (0..100).
2. Are the picks harder for an expert that took no part in the selection? KADID-10k, TID2013 and
   CSIQ with published scores of SSIMULACRA (selects), DSSIM and Butteraugli (tested); AGIQA-3K with
   Q-Bench's logits of seven models (LLaVA-1.5 selects). Three ways: as Eq. 5 on 0..100, without its
   variance normalisation, and as the released code. Two measures: the mean absolute error on the
   picks over that on all stimuli, and the SRCC on uniform stimuli less that on the picks. People
   agree most at the ends of the scale, so the picks have a wider range of MOS than random stimuli,
   and range alone raises a correlation: they are compared with stimuli of equal MOS as well.
   Intervals: picks and controls resampled, 95 %.
3. What do the diversity term and the alignment (in the sample or out of fold) change?

Features are normal noise around 60 centres where no images are at hand.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_checks.agreement import srcc
from iqa_checks.difficult import DifficultPicks, select_difficult, select_difficult_by_reference
from iqa_checks.experts import fuse
from iqa_checks.greedy import DIVS

DATA = Path(os.environ.get("IQA_CHECKS_RATED_DATA", "."))
TABLES = DATA / "score_tables"
FloatArray = NDArray[np.float64]
ERROR_SD, N_DRAWS = 12.0, 500


@dataclass(frozen=True)
class Table:
    """MOS and SD on 0..100, higher = better; ``unit`` turns an SD back into the published one."""

    name: str
    mos: FloatArray
    sd: FloatArray
    unit: float
    references: tuple[str, ...] = ()
    experts: dict[str, FloatArray] | None = None


def no_reference(name: str, file: str, low: float, high: float) -> Table:
    rows = [line.split() for line in (TABLES / "mllms_for_iqa" / file).read_text().splitlines()]
    mos, sd = (np.array([float(row[k]) for row in rows]) for k in (1, 2))
    unit = (high - low) / 100
    return Table(name, (mos - low) / unit, sd / unit, unit)


def full_reference(name: str, stem: str, low: float, high: float, sd: str | None) -> Table:
    folder = TABLES / "vqmt_crossval"
    with (folder / f"{stem}.VQMT.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    score = next(c for c in ("dmos", "DMOS", "mos", "MOS") if c in rows[0])

    def column(key: str) -> FloatArray:
        return np.array([float(row[key].replace(",", ".")) for row in rows])

    reference = next(c for c in ("ref_img", "image", "ref") if c in rows[0])
    unit = (high - low) / 100
    return Table(
        name,
        np.clip((column(score) - low) / unit, 0, 100),
        column(sd) / abs(unit) if sd else np.full(len(rows), np.nan),
        unit,
        tuple(row[reference].lower() for row in rows),
        {e: -column(e) for e in ("DSSIM", "SSIMULACRA", "Butteraugli")},
    )


def with_mllms(table: Table, names: list[str], file: str) -> Table:
    """The stimuli that all of Q-Bench's models scored: logit of "good" less that of "poor"."""
    scores = {f.parent.name: _logits(f) for f in sorted((DATA / "qbench/raw").glob(f"*/{file}"))}
    known = [k for k, name in enumerate(names) if all(name in x for x in scores.values())]
    experts = {m: np.array([x[names[k]] for k in known]) for m, x in scores.items()}
    return Table(table.name, table.mos[known], table.sd[known], table.unit, experts=experts)


def _logits(path: Path) -> dict[str, float]:
    """Objects without a list around them."""
    text, start, found = path.read_text().strip(), 0, {}
    decoder = json.JSONDecoder()
    while start < len(text):
        row, start = decoder.raw_decode(text, start)
        found[row["img_path"]] = row["logit_good"] - row["logit_poor"]
        start += len(text[start:]) - len(text[start:].lstrip(" \n,"))
    return found


def features(n: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, 512))
    return (centres[rng.integers(0, 60, n)] + rng.normal(size=(n, 512))).astype(np.float32)


def simulated(table: Table, seed: int = 0) -> FloatArray:
    return table.mos + np.random.default_rng(seed).normal(0, ERROR_SD, len(table.mos))


def variance_normalisation() -> None:
    print("1. opinion SD of 150 picks, mean [quartiles], in the published unit")
    for table in (
        no_reference("SPAQ", "SPAQ_mos_std.txt", 0, 100),
        no_reference("AGIQA-3K", "AGIQA3K_mos_std.txt", 0, 4.489),
    ):
        expert, rows = simulated(table), features(len(table.mos))
        found = select_difficult(table.mos, table.sd, expert, rows)
        small = select_difficult(table.mos / 100, table.sd / 100, expert / 100, rows)
        assert found.sd_picks is not None
        assert found.sd_without_variance is not None
        print(f"   {table.name}: all {_spread(table.sd, table)}")
        print(f"      without normalisation {_spread(found.sd_without_variance, table)}")
        print(f"      with it               {_spread(found.sd_picks, table)}")
        print(
            f"      picks it changed: {found.changed_by_variance} on 0..100, "
            f"{small.changed_by_variance} on 0..1"
        )
        terms = [
            f"{div} {select_difficult(table.mos, table.sd, expert, rows, div=div, lam=lam)}"
            for div in DIVS
            for lam in (0.01, 0.1)
        ]
        print("      " + "\n      ".join(terms))
        paper = select_difficult(table.mos, table.sd, expert, rows, preset="paper")
        print(f"      paper preset: {paper}")


def _spread(sd: FloatArray, table: Table) -> str:
    low, middle, high = np.quantile(sd, [0.25, 0.5, 0.75]) * table.unit
    return f"{np.mean(sd) * table.unit:.2f} [{low:.2f} {middle:.2f} {high:.2f}]"


WAYS = ("Eq. 5", "no variance", "paper preset")


def harder_for_others() -> None:
    print("\n2. error on the picks over that on all; SRCC on controls less that on the picks")
    generated = no_reference("AGIQA-3K", "AGIQA3K_mos_std.txt", 0, 4.489)
    lines = (TABLES / "mllms_for_iqa/AGIQA3K_mos_std.txt").read_text().splitlines()
    tables = [
        (full_reference("KADID-10k", "kadid10k", 1, 5, "var"), "SSIMULACRA"),
        (full_reference("TID2013", "TID2013", 0, 9, None), "SSIMULACRA"),
        (full_reference("CSIQ", "csiq", 1, 0, "dmos_std"), "SSIMULACRA"),
        (with_mllms(generated, [line.split()[0] for line in lines], "agi.json"), "llava_v1.5"),
    ]
    for table, selecting in tables:
        assert table.experts is not None
        aligned = {name: fuse({name: x}, table.mos) for name, x in table.experts.items()}
        for way in WAYS:
            if way == "no variance" and np.isnan(table.sd).any():
                continue  # it is Eq. 5 there
            picked = _picked(table, aligned[selecting], way)
            _report(table, aligned, way, picked, selecting)
        if table.references:
            _by_reference(table, aligned, selecting)


def _picked(table: Table, expert: FloatArray, way: str) -> DifficultPicks:
    known = None if way == "no variance" or np.isnan(table.sd).any() else table.sd
    n = min(150, len(table.mos) // 4)
    rows = features(len(table.mos))
    if way == "paper preset":
        return select_difficult(table.mos, known, expert, rows, n, preset="paper", compare=False)
    return select_difficult(table.mos, known, expert, rows, n, compare=False)


def _by_reference(table: Table, aligned: dict[str, FloatArray], selecting: str) -> None:
    n_references = len(set(table.references))
    sd = None if np.isnan(table.sd).any() else table.sd
    half = min(15, n_references // 2)
    found = select_difficult_by_reference(
        table.mos, sd, aligned[selecting], table.references, np.eye(n_references), half, 10
    )
    _report(table, aligned, f"Eqs. 3-4, {half} references x 10", found, selecting)


def _report(
    table: Table,
    aligned: dict[str, FloatArray],
    way: str,
    picked: DifficultPicks,
    selecting: str,
) -> None:
    mos, picks = table.mos, picked.picks
    ends = [100 * np.mean(np.abs(x - 50) > 25) for x in (mos[picks], mos)]
    print(
        f"   {table.name}, {way}: SD of MOS {picked.mos_spread:.2f} of that of all stimuli; "
        f"{ends[0]:.0f} % in the outer quarters of the scale (of all {ends[1]:.0f} %)"
    )
    for name, scores in aligned.items():
        role = "selects" if name == selecting else "not used"
        parts = [
            f"SRCC {srcc(scores, mos):.3f}, picks {srcc(scores[picks], mos[picks]):.3f}",
            f"error x {_error_ratio(scores - mos, picks)}",
            f"below random {_drop(table, scores, picks, len(picks), False)}",
            f"below equal MOS {_drop(table, scores, picks, len(picks), True)}",
        ]
        print(f"      {name:18} ({role:8}) {'  '.join(parts)}", flush=True)


def _error_ratio(error: FloatArray, picks: NDArray[np.intp]) -> str:
    """Mean absolute error on resampled picks over that on all; mean and 95 % interval."""
    rng = np.random.default_rng(0)
    whole, own = np.mean(np.abs(error)), np.abs(error[picks])
    ratios = [np.mean(rng.choice(own, len(own))) / whole for _ in range(N_DRAWS)]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.mean(ratios):.2f} [{low:.2f}, {high:.2f}]"


def _drop(table: Table, scores: FloatArray, picks: NDArray[np.intp], n: int, matched: bool) -> str:
    """SRCC on controls less SRCC on the picks, both resampled; mean and 95 % interval."""
    rng = np.random.default_rng(0)
    others = np.setdiff1d(np.arange(len(table.mos)), picks)
    others = others[np.argsort(table.mos[others], kind="stable")]
    near = np.searchsorted(table.mos[others], table.mos[picks])
    reach = max(2, len(others) // 200)
    drops = []
    for _ in range(N_DRAWS):
        some = rng.integers(0, n, n)
        control = rng.choice(len(table.mos), n, replace=False)
        if matched:
            shift = rng.integers(-reach, reach + 1, n)
            control = others[np.clip(near[some] + shift, 0, len(others) - 1)]
        resampled = picks[some]
        drops.append(
            srcc(scores[control], table.mos[control])
            - srcc(scores[resampled], table.mos[resampled])
        )
    low, high = np.quantile(drops, [0.025, 0.975])
    return f"{np.mean(drops):.3f} [{low:.3f}, {high:.3f}]"


def alignment() -> None:
    print("\n3. picks in common, alignment in the sample and out of fold (KADID-10k, by reference)")
    table = full_reference("KADID-10k", "kadid10k", 1, 5, "var")
    assert table.experts is not None
    pair = {name: table.experts[name] for name in ("SSIMULACRA", "DSSIM")}
    rows = features(len(table.mos))
    chosen = {}
    for align in ("logistic", "rank"):
        for folds in (None, 9):
            fused = fuse(pair, table.mos, align=align, n_folds=folds, groups=table.references)
            picks = select_difficult(table.mos, table.sd, fused, rows, compare=False).picks
            chosen[align, folds] = set(picks.tolist())
    first = chosen["logistic", None]
    for (align, folds), picks in chosen.items():
        how = f"{align}, " + ("in the sample" if folds is None else f"{folds} folds by reference")
        print(f"   {how:35} {len(first & picks)} of {len(first)} as logistic in the sample")


if __name__ == "__main__":
    variance_normalisation()
    harder_for_others()
    alignment()
