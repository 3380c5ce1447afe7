"""How long it takes to look over, to select from and to load a set of KADID-10k's size.

    python tests/benchmarks/bench_datasets.py [FOLDER]

Writes 10,206 noisy PNGs of 512 x 384 (3.6 GB) into FOLDER/kadid10k unless they are there, then
measures each step in a process of its own, twice; the second has the files in the page cache.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

STEPS = {
    "look over": "from iqa_checks.datasets import main; main([FOLDER])",
    "quick FR cell": "stimuli_for('FR-KADID', 'fr', SOURCE)",
    "quick NR cell": "stimuli_for('NR-KADID', 'nr', SOURCE)",
    "quick Aug-KADID cell": "stimuli_for('Aug-KADID', 'fr', SOURCE)",
    "whole set": "load_dataset('FR-KADID', FOLDER)",
}
SETUP = """
import resource, sys, time
from pathlib import Path
from iqa_checks.datasets import StimulusSource, load_dataset, stimuli_for
FOLDER = sys.argv[1]
SOURCE = StimulusSource(Path(FOLDER) / "cache", data=Path(FOLDER))
"""
TIMED = """
start = time.perf_counter()
{step}
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{{time.perf_counter() - start:8.2f}} s wall {{used.ru_utime + used.ru_stime:8.2f}} s CPU")
"""


def plant(folder: Path) -> None:
    """KADID-10k's names; every file differs from the others by a text chunk."""
    images = folder / "kadid10k" / "images"
    if images.exists():
        return
    images.mkdir(parents=True)
    whole = noise()
    lines = ["dist_img,ref_img,dmos,var"]
    names = [f"I{c:02d}" for c in range(1, 82)]
    for content in list(names):
        for k in range(125):
            names.append(f"{content}_{k // 5 + 1:02d}_{k % 5 + 1:02d}")
            lines.append(f"{names[-1]}.png,{content}.png,{1 + len(names) * 37 % 400 / 100},0.8")
    for k, name in enumerate(names):
        text = b"tEXtn\0%05d" % k
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        (images / f"{name}.png").write_bytes(whole[:33] + chunk + whole[33:])
    (folder / "kadid10k" / "dmos.csv").write_text("\n".join(lines) + "\n")


def noise() -> bytes:
    """A smooth picture with enough noise to make 0.4 MB."""
    draw = np.random.default_rng(0)
    smooth = PIL.Image.fromarray(draw.integers(40, 200, (6, 8, 3), np.uint8)).resize((512, 384))
    pixels = np.asarray(smooth, int) + draw.integers(-4, 5, (384, 512, 3))
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    plant(folder)
    for name, step in STEPS.items():
        script = SETUP + TIMED.format(step=step)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", script, str(folder)],
                capture_output=True,
                text=True,
                check=True,
            )
            load = os.getloadavg()[0]
            print(f"{name:<22} {done.stdout.splitlines()[-1]}   (load {load:.1f})", flush=True)


if __name__ == "__main__":
    main()
