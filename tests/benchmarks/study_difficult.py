"""Do difficult samples behave as the paper says? On real tables of human scores.

Run ``IQA_CHECKS_RATED_DATA=FOLDER python tests/benchmarks/study_difficult.py``, FOLDER holding
``score_tables``. Three questions:

1. Fig. 4: does variance normalisation move the picks to samples that people agree on, and does
   the scale of 0..100 matter? SPAQ and AGIQA-3K, expert = MOS with normal errors of SD 12 (0..100).
2. Are the picks harder for an expert that took no part in the selection? KADID-10k, TID2013 and
   CSIQ with published scores of SSIMULACRA (selects), DSSIM and Butteraugli (tested). People agree
   most at the ends of the scale, so the picks have a wider range of MOS than random stimuli have,
   and range alone raises a correlation: they are compared with stimuli of equal MOS as well.
3. What do the diversity term and the alignment (in the sample or out of fold) change?

Features are normal noise around 60 centres where no images are at hand.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_checks.agreement import srcc
from iqa_checks.difficult import DifficultPicks, select_difficult, select_difficult_by_reference
from iqa_checks.experts import fuse
from iqa_checks.greedy import DIVS

TABLES = Path(os.environ.get("IQA_CHECKS_RATED_DATA", ".")) / "score_tables"
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


def harder_for_others() -> None:
    print("\n2. SRCC on all stimuli and on the picks, and how far it lies below that of controls")
    kadid = full_reference("KADID-10k", "kadid10k", 1, 5, "var")
    tables = [
        kadid,
        full_reference("TID2013", "TID2013", 0, 9, None),
        full_reference("CSIQ", "csiq", 1, 0, "dmos_std"),
    ]
    for table in tables:
        assert table.experts is not None
        sd = None if np.isnan(table.sd).any() else table.sd
        n = min(150, len(table.mos) // 4)
        for selecting in (("SSIMULACRA",), ("SSIMULACRA", "DSSIM")):
            fused = fuse({name: table.experts[name] for name in selecting}, table.mos)
            picked = select_difficult(table.mos, sd, fused, features(len(table.mos)), n)
            _report(table, "images", picked, n, selecting)
        n_references = len(set(table.references))
        half = min(15, n_references // 2)
        per = 10
        by_reference = select_difficult_by_reference(
            table.mos, sd, fused, table.references, np.eye(n_references), half, per
        )
        _report(table, f"{half} references x {per}", by_reference, half * per, selecting)


def _report(
    table: Table, how: str, picked: DifficultPicks, n: int, selecting: tuple[str, ...]
) -> None:
    assert table.experts is not None
    spread = picked.mos_spread
    print(f"   {table.name}, {how}: SD of MOS {spread:.2f} of that of all stimuli")
    for name, scores in table.experts.items():
        role = "selects" if name in selecting else "not used"
        hard = srcc(scores[picked.picks], table.mos[picked.picks])
        parts = [
            f"below {kind} {_drop(table, scores, picked.picks, n, matched)}"
            for kind, matched in (("random", False), ("equal MOS", True))
        ]
        whole = srcc(scores, table.mos)
        print(
            f"      {name:12} ({role:8}) all {whole:.3f}  picks {hard:.3f}  {'  '.join(parts)}",
            flush=True,
        )


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
