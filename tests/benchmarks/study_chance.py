"""What a model that answers at random scores in every prompting system, under both presets.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/study_chance.py [--quick]``; the full run takes
minutes. The package's own `random` observer replies in words to the package's own prompts, and
`run_cell` reads, scales and correlates them; only the images are names in memory, which an
observer that answers at random does not look at, and the permutations of `chance_level` are left
out, since the study is what they would estimate.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from iqa_checks import cell as cell_module
from iqa_checks.cell import Cell, CellResult, run_cell
from iqa_checks.models.observer import Observer, Traits
from iqa_checks.prompts import Prompt, Scenario, load_strategies
from iqa_checks.protocols import PROTOCOLS, Preset, ProtocolName, rng
from iqa_checks.replies import Reply
from iqa_checks.stimuli import Image, Stimulus, StimulusSet

PER_REFERENCE = 10
N_EXEMPLARS = 4


@dataclass(frozen=True, slots=True)
class RandomAsker:
    """The `random` observer in memory; an image's hash stands for its bytes."""

    observer: Observer

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return [
            Reply(
                self.observer.reply(
                    prompt.text,
                    [image.sha256.encode() for image in prompt.images],
                    repeat=prompt.repeat,
                )
            )
            for prompt in prompts
        ]


def stimuli(n: int, seed: int) -> StimulusSet:
    """``n`` stimuli, ten to a reference, with normal opinions (mean 50, SD 15) and exemplars."""
    opinions = rng("chance", n, seed).normal(50, 15, n + N_EXEMPLARS).clip(0, 100)
    rows = [
        Stimulus(
            _image(f"{n}:{seed}:{i}"),
            float(opinion),
            None,
            _image(f"{n}:{seed}:reference {i // PER_REFERENCE}"),
        )
        for i, opinion in enumerate(opinions)
    ]
    return StimulusSet("chance", tuple(rows[:n]), (0, 100), exemplars=tuple(rows[n:]))


def _image(name: str) -> Image:
    return Image(Path(name), hashlib.sha256(name.encode()).hexdigest(), "image/png", 1, 1)


def answered_at_random(
    n: int, scenario: Scenario, protocol: ProtocolName, strategy: str, preset: Preset, seed: int
) -> CellResult:
    """One cell; everything in it is drawn from ``seed``."""
    asker = RandomAsker(Observer(Traits(seed=seed), random=True))
    cell = Cell(stimuli(n, seed), scenario, protocol, strategy, preset, seed=seed)
    with patch.object(cell_module, "chance_level"):
        return run_cell(cell, asker)


def row(n: int, scenario: Scenario, protocol: ProtocolName, preset: Preset, n_repeats: int) -> str:
    """Headline SRCC and PLCC of all strategies together: a random observer reads none of them."""
    results = [
        answered_at_random(n, scenario, protocol, strategy, preset, seed)
        for strategy in load_strategies()
        for seed in range(n_repeats)
    ]
    cells = [f"{n}", scenario, protocol, preset, f"{len(results)}"]
    for values in ([r.srcc.value for r in results], [r.plcc.value for r in results]):
        known = np.array([v for v in values if v is not None])
        low, high = np.quantile(known, (0.05, 0.95))
        cells.append(f"{known.mean():+.3f} ({low:+.2f} to {high:+.2f})")
    below, above = (
        np.mean([p is not None and p < 0.05 for p in tails])
        for tails in ([r.srcc.p_below(0) for r in results], [r.srcc.p_above_zero for r in results])
    )
    cells += [f"{100 * below:.0f} %", f"{100 * above:.0f} %"]
    cells.append(f"{sum(sum(r.unparsed.values()) for r in results)}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 60 and fewer repeats")
    quick = parser.parse_args().quick
    print(
        "| n | scenario | protocol | preset | cells | SRCC: mean (5 to 95 %) "
        "| PLCC: mean (5 to 95 %) | SRCC below 0 at 5 % | SRCC above 0 at 5 % | unparsed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    scenarios: tuple[Scenario, ...] = ("fr", "nr")
    presets: tuple[Preset, ...] = ("sound", "paper")
    sizes = (60,) if quick else (60, 150)
    for n, preset, scenario, protocol in itertools.product(sizes, presets, scenarios, PROTOCOLS):
        print(row(n, scenario, protocol, preset, 5 if quick else 30), flush=True)


if __name__ == "__main__":
    main()
