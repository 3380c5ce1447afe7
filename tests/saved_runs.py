"""Runs as a comparison finds them in files, made from simulated scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from iqa_checks.agreement import chance_level, cluster_mean, correlation
from iqa_checks.baseline import CellRecord, Run, SavedTrial
from iqa_checks.gate import Verdict
from iqa_checks.report.row import Interval, Row


def saved_cell(
    scores: Sequence[float | None],
    quality: Sequence[float],
    *,
    references: Sequence[str] | None = None,
    cell: str | None = None,
    order: Sequence[int] | None = None,
    replied_at: float = 0.0,
    unparsed: int = 0,
    configuration: dict[str, str] | None = None,
    preset: str = "sound",
) -> tuple[Row, CellRecord]:
    """A single-stimulus cell; ``order`` is the order of its stimuli in the file."""
    scenario = "nr" if references is None else "fr"
    order = list(range(len(quality)) if order is None else order)
    digests = [hashlib.sha256(f"stimulus-{k}".encode()).hexdigest() for k in order]
    known = np.array([k for k in order if scores[k] is not None])
    x, y = np.array([scores[k] for k in known], dtype=float), np.array(quality)[known]
    groups = None if references is None else np.array(references)[known]
    pooled = correlation(x, y, cluster=groups)
    headline = pooled if groups is None else cluster_mean(x, y, groups)
    plcc = correlation(x, y, statistic="plcc", cluster=groups)
    chance = chance_level(x, y, n_permutations=20)
    figures = {"srcc": headline, "srcc_pooled": pooled, "plcc": plcc, "plcc_raw": plcc,
               "krcc": pooled}  # fmt: skip
    intervals = {k: Interval(c.value, c.low, c.high, c.reason) for k, c in figures.items()}
    verdict = Verdict("ABOVE CHANCE", ("fine.",), True)
    content = "".join(sorted(f"{d}{quality[k]}" for d, k in zip(digests, order, strict=True)))
    row = Row(
        cell=cell or f"{scenario}-single-standard-fake", model="fake", stimuli="fake",
        scenario=scenario, protocol="single", strategy="standard", selection="uniform",
        preset=preset, opinion="MOS", attribute="general",
        manifest=hashlib.sha256(content.encode()).hexdigest(), n=len(order),
        n_references=None if references is None else len(set(references)), trials=len(order),
        **intervals, chance_srcc=chance.upper, chance_plcc=None, chance_p=chance.p_value,
        unparsed_rate=unparsed / len(order), unparsed={"refusal": unparsed} if unparsed else {},
        tie_rate=None, position_bias=None, consistency=None,
        replies={"new": len(order), "resumed": 0, "reused": 0},
        tokens={"prompt": 0, "completion": 0}, verdict=verdict.status, passed=True,
        explanation=str(verdict), warnings=(), notes=(),
        per_stimulus=tuple(
            (f"{k}.png", digest, float(quality[k]), None if scores[k] is None else float(scores[k]))
            for k, digest in zip(order, digests, strict=True)
        ),
    )  # fmt: skip
    trials = tuple(
        SavedTrial((place,), 0, _rating(scores[k]), replied_at + k if replied_at else 0.0)
        for place, k in enumerate(order)
    )
    asked = {"preset": preset, "seed": "0", "scaling": "thurstone_map", "repeats": "1",
             "selection": "uniform", "wording": "0" * 64} | (configuration or {})  # fmt: skip
    refs = [""] * len(order) if references is None else [references[k] for k in order]
    return row, CellRecord(asked, tuple(refs), tuple(float(quality[k]) for k in order), trials)


def saved_run(*cells: tuple[Row, CellRecord], **described: object) -> Run:
    rows = tuple(row for row, _ in cells)
    given = {"model": "fake", "fingerprint": "weights:0", "preset": "sound", "seed": 0,
             "started_at": 1.0, "saved_at": 2.0, "versions": {"numpy": "2"}}  # fmt: skip
    return Run(rows=rows, records={row.cell: record for row, record in cells}, **given | described)


def simulated(
    n: int = 150, noise: float = 10.0, seed: int = 0, **options: object
) -> tuple[Row, CellRecord]:
    """A cell whose opinions are the same for every release and whose errors are its own."""
    quality = np.random.default_rng(99).uniform(0, 100, n)
    shared = np.random.default_rng(98).normal(0, 10, n)
    own = np.random.default_rng(seed).normal(0, noise, n)
    return saved_cell(quality + shared + own, quality, **options)


def _rating(score: float | None) -> float | dict[str, str]:
    return {"unparsed": "refusal"} if score is None else float(score)
