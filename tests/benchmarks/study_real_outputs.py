"""Published figures of real models, metrics and observers, computed again by this package.

Run ``IQA_CHECKS_RATED_DATA=FOLDER python tests/benchmarks/study_real_outputs.py``; the folder
holds ``qbench``, ``score_tables`` and ``pairwise`` with a ``SOURCE.md`` each, which says where the
files are from and on what terms. ``--quick`` leaves out nothing: the whole run takes seconds.
``tests/test_real_outputs.py`` asserts what this prints.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_checks.agreement import krcc, plcc, srcc
from iqa_checks.scaling import Comparisons, QualityScale, thurstone_map

FloatArray = NDArray[np.float64]
DATA_VARIABLE = "IQA_CHECKS_RATED_DATA"
METRICS = ("DSSIM", "SSIMULACRA", "Butteraugli")
JPEG_AI = "6"

#: PLCC, SRCC, KRCC of each of METRICS, README of SmilingWolf/VQMTCrossVal @ ab9d15b3c120
CROSSVAL_PUBLISHED: dict[str, tuple[tuple[float, float, float], ...]] = {
    "csiq": ((0.803, 0.946, 0.793), (0.793, 0.848, 0.644), (0.767, 0.902, 0.722)),
    "IVC": ((-0.758, -0.916, -0.748), (-0.789, -0.834, -0.640), (-0.607, -0.792, -0.595)),
    "JPEGXR": ((-0.833, -0.904, -0.725), (-0.849, -0.840, -0.656), (-0.836, -0.878, -0.696)),
    "kadid10k": ((-0.639, -0.856, -0.670), (-0.623, -0.700, -0.508), (-0.605, -0.735, -0.546)),
    "LIVE2": ((0.576, 0.955, 0.813), (0.783, 0.914, 0.740), (0.699, 0.900, 0.718)),
    "TID2013": ((-0.773, -0.861, -0.678), (-0.663, -0.673, -0.485), (-0.648, -0.760, -0.572)),
}
CROSSVAL_OPINION = {"csiq": "dmos", "kadid10k": "dmos", "LIVE2": "dmos_new"}


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One published figure beside ours."""

    name: str
    statistic: str
    published: float
    ours: float

    @property
    def error(self) -> float:
        """Absolute difference; 0 where both are undefined."""
        if np.isnan(self.published) and np.isnan(self.ours):
            return 0.0
        return abs(self.ours - self.published)


# --- Q-Bench --------------------------------------------------------------------------------------


def qbench(folder: Path) -> Iterator[Reproduced]:
    """SRCC and PLCC of Q-Bench's models by softmax and by argmax of the two logits."""
    readings = {
        "softmax": lambda good, poor: (
            np.exp(good / 100) / (np.exp(good / 100) + np.exp(poor / 100))
        ),
        "argmax": lambda good, poor: (good > poor).astype(np.float64),
    }
    files = sorted([*folder.glob("raw/*/*.json"), *folder.glob("raw/*/*.json.gz")])
    for reading, score in readings.items():
        published = qbench_published(folder / f"published_{reading}_srcc_plcc.csv")
        for path in files:
            model, stimuli = path.parent.name, path.name.partition(".")[0]
            good, poor, mos = qbench_logits(path)
            scores = score(good, poor)
            expected = published[model, stimuli]
            name = f"{model} {stimuli} {reading}"
            yield Reproduced(name, "SRCC", expected[0], srcc(scores, mos))
            yield Reproduced(name, "PLCC", expected[1], plcc(scores, mos, mapping="none"))


def qbench_published(path: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, stimulus set) -> (SRCC, PLCC) as the authors' notebook printed them."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(r["model"], r["dataset"]): (float(r["srcc"]), float(r["plcc"])) for r in rows}


def qbench_logits(path: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Logits of "good" and "poor" and the MOS; the files are objects strung together, not a list.

    instructblip_vicuna's files hold their first row twice, and so did the published figures.
    """
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode().strip()
    rows = json.loads("[" + text.replace("}{", "},{") + "]")
    columns = ([float(r[key]) for r in rows] for key in ("logit_good", "logit_poor", "gt_score"))
    good, poor, mos = (np.array(column) for column in columns)
    return good, poor, mos


# --- VQMTCrossVal ---------------------------------------------------------------------------------


def crossval(folder: Path) -> Iterator[Reproduced]:
    """PLCC (of the numbers as they are), SRCC and KRCC of three metrics on six stimulus sets."""
    for stimuli, triples in CROSSVAL_PUBLISHED.items():
        with (folder / f"{stimuli}.VQMT.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        mos = np.array([float(r[CROSSVAL_OPINION.get(stimuli, "mos")]) for r in rows])
        for metric, triple in zip(METRICS, triples, strict=True):
            scores = np.array([float(r[metric]) for r in rows])
            name = f"{metric} {stimuli}"
            yield Reproduced(name, "PLCC", triple[0], plcc(scores, mos, mapping="none"))
            yield Reproduced(name, "SRCC", triple[1], srcc(scores, mos))
            yield Reproduced(name, "KRCC", triple[2], krcc(scores, mos))


# --- JPEG AIC -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class AicSource:
    """One source image: published JND distortion of its versions, and our distortion.

    Ours is the Thurstone score of the source minus that of its version, in standard deviations of
    a comparison. Both are (n,), higher = worse.
    """

    source: str
    published: FloatArray
    ours: FloatArray
    n_judgements: int
    scale: QualityScale


def jpeg_aic(folder: Path, method: str, *, only_jpeg_ai: bool) -> list[AicSource]:
    """Scales from the triplets of ``method``: BTC (boosted) or PTC (plain).

    Which of two images differs more from the source; "not sure" is a tie. All workers count;
    traps, bias checks and skipped questions do not. Other codecs than JPEG AI were only ever
    asked beside it; all judgements go into a scale either way.
    """
    published = aic_published(folder / "JPEG_AIC_reconstructed_jnd_scores.csv")
    answers = aic_answers(folder / "JPEG_AI_SDR_subjective_data.zip", method)
    sources = []
    for source, judged in sorted(answers.items(), key=lambda item: int(item[0])):
        names, scale = scaled(judged)
        reference = scale.scores[names.index(("0", "0"))]
        kept = [
            (truth, reference - scale.scores[names.index(version)])
            for version, truth in published[source].items()
            if version in names and (version[0] == JPEG_AI or not only_jpeg_ai)
        ]
        truth, ours = np.array(kept).T
        sources.append(AicSource(source, truth, ours, len(judged), scale))
    return sources


def aic_published(path: Path) -> dict[str, dict[tuple[str, str], float]]:
    """source -> (codec, level) -> JND distortion, higher = worse."""
    table: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            table[row["img_num"]][row["codec"], row["dlevel"]] = float(row["distortion"])
    return table


def aic_answers(
    path: Path, method: str
) -> dict[str, list[tuple[tuple[str, str], tuple[str, str], float]]]:
    """source -> (left, right, outcome for the left being *better*), versions as (codec, level)."""
    # The image picked is the worse one.
    outcomes = {"left": 0.0, "right": 1.0, "notsure": 0.5}
    answers = defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        member = next(n for n in archive.namelist() if f"_{method}_JPEG_AI_responses" in n)
        with archive.open(member) as raw:
            for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig")):
                checked = row["is_bias"] == "1" or row["is_trap"] == "1"
                if checked or row["response"] not in outcomes:
                    continue
                left, right = (
                    (row[f"codec_{side}"] if row[f"dlevel_{side}"] != "0" else "0",
                     row[f"dlevel_{side}"])
                    for side in ("left", "right")
                )  # fmt: skip
                answers[row["img_num"]].append((left, right, outcomes[row["response"]]))
    return answers


def scaled(
    judged: Iterable[tuple[tuple[str, ...], tuple[str, ...], float]],
) -> tuple[list[tuple[str, ...]], QualityScale]:
    """Names of what was compared and its `thurstone_map`."""
    rows = list(judged)
    names = sorted({name for first, second, _ in rows for name in (first, second)})
    index = {name: i for i, name in enumerate(names)}
    pairs = [(index[first], index[second], outcome) for first, second, outcome in rows]
    return names, thurstone_map(Comparisons.from_judgements(pairs, len(names)))


# --- BAPPS and pwcmp ------------------------------------------------------------------------------

#: 2AFC score of LPIPS (AlexNet) in percent, SOURCE.md of the data
BAPPS_PUBLISHED = {
    "traditional": 77.48, "cnn": 82.87, "superres": 71.19, "deblur": 61.04, "color": 65.23,
    "frameinterp": 62.43,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bapps:
    """2AFC scores of one part of BAPPS' validation set, recomputed from distances and votes."""

    part: str
    n: int
    largest_error: float
    mean: float
    published: float


def bapps(folder: Path) -> Iterator[Bapps]:
    """2AFC: the share of people who agree with the smaller of two distances; a half when equal."""
    for part, published in BAPPS_PUBLISHED.items():
        with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        d0, d1, stored, prefer_1 = (
            np.array([float(r[key]) for r in rows])
            for key in (
                "lpips_alex_d0",
                "lpips_alex_d1",
                "lpips_alex_2afc_score",
                "judge_prefers_p1_fraction",
            )
        )
        score = (d0 < d1) * (1 - prefer_1) + (d1 < d0) * prefer_1 + (d0 == d1) * 0.5
        error = float(np.max(np.abs(score - stored)))
        yield Bapps(part, len(rows), error, 100 * float(np.mean(score)), published)


def pwcmp(folder: Path) -> Iterator[tuple[str, str, int, QualityScale]]:
    """(study, scene, judgements, scale) of two studies of mantiuk/pwcmp."""
    studies = {
        "tone mapping": ("ex3_tmo_cmp_data.csv", tone_mapping_pair),
        "light fields": ("lf_quality_pwcmps.csv", light_field_pair),
    }
    for study, (name, read) in studies.items():
        scenes = defaultdict(list)
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                first, second, outcome = read(row)
                if first != second:
                    scenes[row["scene"]].append((first, second, outcome))
        for scene, judged in sorted(scenes.items()):
            yield study, scene, len(judged), scaled(judged)[1]


def tone_mapping_pair(row: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """The two tone-mapping operators and 1.0 where A was selected."""
    return (row["condition_A"],), (row["condition_B"],), float(row["is_A_selected"])


def light_field_pair(row: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """The two distortions with their levels and 1.0 where the first was selected."""
    first, second = ((row[f"dist_type{k}"], row[f"dist_level{k}"]) for k in (1, 2))
    return first, second, {"1": 1.0, "2": 0.0}[row["selected"]]


# --- Tables ---------------------------------------------------------------------------------------


def print_reproduced(title: str, rows: list[Reproduced], within: float) -> None:
    """How many published figures come out, and the worst, by statistic."""
    print(f"| {title} | figures | within {within:g} | largest difference | at |")
    print("|---|---|---|---|---|")
    for statistic in dict.fromkeys(r.statistic for r in rows):
        own = [r for r in rows if r.statistic == statistic]
        worst = max(own, key=lambda r: r.error)
        hits = sum(r.error <= within for r in own)
        print(f"| {statistic} | {len(own)} | {hits} | {worst.error:.4f} | {worst.name} |")
    print()


def print_jpeg_aic(folder: Path) -> None:
    """Agreement of our scale with the published JND scale, by kind of triplet."""
    print(
        "| JPEG AIC | judgements | versions | SRCC per source | PLCC per source "
        "| SRCC pooled | PLCC pooled |"
    )
    print("|---|---|---|---|---|---|---|")
    for method, title in (("BTC", "boosted"), ("PTC", "plain")):
        for only, codecs in ((True, "JPEG AI"), (False, "all codecs")):
            sources = jpeg_aic(folder, method, only_jpeg_ai=only)
            orders = " ".join(f"{srcc(s.ours, s.published):.3f}" for s in sources)
            lines = " ".join(f"{plcc(s.ours, s.published, mapping='none'):.3f}" for s in sources)
            ours = np.concatenate([s.ours for s in sources])
            published = np.concatenate([s.published for s in sources])
            print(
                f"| {title}, {codecs} | {sum(s.n_judgements for s in sources):,} | {len(ours)} "
                f"| {orders} | {lines} | {srcc(ours, published):.3f} "
                f"| {plcc(ours, published, mapping='none'):.3f} |"
            )
    print()


def print_bapps(folder: Path) -> None:
    """The 2AFC identity, part by part."""
    print("| BAPPS 2AFC | triplets | largest difference per triplet | mean, % | published, % |")
    print("|---|---|---|---|---|")
    for row in bapps(folder):
        print(
            f"| {row.part} | {row.n:,} | {row.largest_error:.1e} | {row.mean:.2f} "
            f"| {row.published:.2f} |"
        )
    print()


def print_pwcmp(folder: Path) -> None:
    """What `thurstone_map` says of the pwcmp studies."""
    print(
        "| pwcmp | scenes | judgements | conditions per scene | converged | components "
        "| most Newton steps | largest gradient |"
    )
    print("|---|---|---|---|---|---|---|---|")
    found = list(pwcmp(folder))
    for study in dict.fromkeys(f[0] for f in found):
        scales = [f[3] for f in found if f[0] == study]
        sizes = Counter(len(s.scores) for s in scales)
        print(
            f"| {study} | {len(scales)} | {sum(f[2] for f in found if f[0] == study):,} "
            f"| {min(sizes)} to {max(sizes)} | {sum(s.converged for s in scales)} "
            f"| {max(s.n_components for s in scales)} | {max(s.n_iter for s in scales)} "
            f"| {max(s.grad_norm or 0 for s in scales):.0e} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    if DATA_VARIABLE not in os.environ:
        parser.error(f"set {DATA_VARIABLE} to the folder that holds qbench/, score_tables/ ...")
    data = Path(os.environ[DATA_VARIABLE])
    print_reproduced("Q-Bench", list(qbench(data / "qbench")), 0.003)
    rows = list(crossval(data / "score_tables" / "vqmt_crossval"))
    print_reproduced("VQMTCrossVal", rows, 0.0005)
    print_jpeg_aic(data / "pairwise" / "jpeg_aic")
    print_bapps(data / "pairwise" / "bapps_val_2afc")
    print_pwcmp(data / "pairwise" / "pwcmp")


if __name__ == "__main__":
    main()
