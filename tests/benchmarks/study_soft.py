"""What soft answers gain in agreement per call, beside asking again.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/study_soft.py [--quick]``; the full run takes
minutes. A simulated observer answers over HTTP (`LoopbackServer`) with log-probabilities of its
tokens, and the built-in FR set is asked hard (once and repeated) and softly. The observer's
percept errs by image and cannot be mended; its noise is all at the answer, which is what soft
answers take out: a real model's gain is smaller where its noise is not.

The table before it compares readings of digit tokens with the mean of whole numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from iqa_checks import cell as cell_module
from iqa_checks.agreement import ChanceLevel, chance_level
from iqa_checks.broker import Asker, open_asker
from iqa_checks.builtin import builtin_set
from iqa_checks.cell import Cell, CellResult, run_cell
from iqa_checks.datasets import default_cache
from iqa_checks.models import Access
from iqa_checks.models.loopback import LoopbackServer
from iqa_checks.models.observer import Traits, _rating_odds
from iqa_checks.protocols import ProtocolName
from iqa_checks.stimuli import StimulusSet

NOISES = (5, 10, 20)
SEEN: dict[tuple[str, ...], float] = {}  # statistics of the images, the same for all observers


@dataclass(frozen=True, slots=True)
class Way:
    """How a question is asked: softly or not, how often, by which tokens."""

    name: str
    soft: bool = False
    repeats: int = 1
    digits: bool = False


WAYS = (Way("hard"), Way("hard x 2", repeats=2), Way("hard x 4", repeats=4),
        Way("soft", soft=True), Way("soft, digits", soft=True, digits=True))  # fmt: skip


@contextmanager
def served(observer: str, folder: str, *, digits: bool) -> Iterator[Asker]:
    with LoopbackServer(observer, most_logprobs=20, digits=digits) as server:
        server._observer._quality = SEEN
        access = Access(base_urls=(server.url,))
        store = str(Path(folder) / "replies.sqlite")
        asker = open_asker("openai:observer", store=store, access=access, fresh=True)
        try:
            yield asker
        finally:
            asker.close(finished=True)


def measure(stimuli: StimulusSet, protocol: ProtocolName, way: Way, observer: str) -> CellResult:
    cell = Cell(stimuli, "fr", protocol, soft=way.soft, repeats=way.repeats)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(cell_module, "chance_level", few_permutations),
        served(observer, folder, digits=way.digits) as asker,
    ):
        return run_cell(cell, asker)


def few_permutations(*arrays: Any, **options: Any) -> ChanceLevel:
    """Chance is not looked at here."""
    return chance_level(*arrays, **{**options, "n_permutations": 10})


def agreement_table(stimuli: StimulusSet, seeds: int) -> None:
    print("| protocol | asked | calls | " + " | ".join(f"noise {n}" for n in NOISES) + " |")
    print("| --- | --- | ---: |" + " ---: |" * len(NOISES))
    protocols: tuple[ProtocolName, ...] = ("single", "double")
    for protocol in protocols:
        for way in WAYS:
            if protocol == "double" and way.digits:
                continue
            found = [
                [
                    measure(stimuli, protocol, way, f"observer:noise={noise},tie=6,seed={seed}")
                    for seed in range(seeds)
                ]
                for noise in NOISES
            ]
            calls = np.mean([len(result.asked) for row in found for result in row])
            srcc = [np.mean([result.srcc.value or 0.0 for result in row]) for row in found]
            shown = " | ".join(f"{value:.3f}" for value in srcc)
            print(f"| {protocol} | {way.name} | {calls:.0f} | {shown} |", flush=True)


# --- digits -------------------------------------------------------------------------------------

Later = Callable[[int, int, float], float]  # (ten, written ten, mean unit) -> number
READINGS: dict[str, Later] = {
    "later digits as written": lambda ten, _written, unit: 10 * ten + unit,
    "nearest number": lambda ten, written, _unit: 10 * ten + (0 if ten > written else 9),
    "middle (ours)": lambda ten, _written, _unit: 10 * ten + 4.5,
}


def digits_table(noises: Sequence[float], draws: int) -> None:
    """RMS difference to the mean of whole numbers, points; means 15 to 85, written 10 to 99."""
    print("| noise | written answer | " + " | ".join(READINGS) + " |")
    print("| ---: |" + " ---: |" * (1 + len(READINGS)))
    for noise in noises:
        draw = np.random.default_rng(0)
        errors: dict[str, list[float]] = {"written": [], **{name: [] for name in READINGS}}
        for _ in range(draws):
            odds = _rating_odds([float(draw.uniform(15, 85))], Traits(noise=noise))
            p = np.zeros(101)
            p[[int(number) for number in odds]] = list(odds.values())
            written, mean = int(draw.choice(101, p=p / p.sum())), float(p @ np.arange(101))
            if not 10 <= written <= 99:
                continue
            tens = np.array([p[10 * t : 10 * t + 10].sum() for t in range(1, 10)])
            at = written // 10
            units = p[10 * at : 10 * at + 10]
            unit = float(units @ np.arange(10) / units.sum())
            for name, later in READINGS.items():
                values = [10 * at + unit if t == at else later(t, at, unit) for t in range(1, 10)]
                errors[name].append(float(tens @ values / tens.sum()) - mean)
            errors["written"].append(written - mean)
        rms = [float(np.sqrt(np.mean(np.square(e)))) for e in errors.values()]
        print(f"| {noise:g} | " + " | ".join(f"{value:.2f}" for value in rms) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and draws")
    quick = parser.parse_args().quick
    digits_table((1, 2, 4, 8, 12), 200 if quick else 1500)
    print()
    stimuli = builtin_set("fr", default_cache(), name="builtin", full=False)
    agreement_table(stimuli, 2 if quick else 4)
