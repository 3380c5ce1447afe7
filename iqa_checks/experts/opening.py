"""From the name of an expert to a function of image files, by the route of its registry line.

Packages are imported here on first use, and weights must be at hand before any is built.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import StimulusError, UsageError
from iqa_checks.experts.packages import require
from iqa_checks.experts.weights import WeightFile, find_all, staged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.experts.registry import Expert, Route

Score = Callable[[Path, "Path | None"], float]
"""Raw value of a distorted image, and of its reference where the metric takes one."""

SEED = 0  # metrics that crop at random draw the same crops for every image


def open_expert(name: str, weights_dir: Path | None, device: str) -> Score:
    """Load an expert; `UsageError` for absent weights, `MissingExtra` for an absent package."""
    from iqa_checks.experts.registry import find_expert

    expert = find_expert(name)
    found = find_all(expert.weights, weights_dir, who=f"expert {name}")
    return ROUTES[expert.route](expert, found, device)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """RGB pixels of an image file as stored, shape (H, W, 3); transparency is dropped."""
    import numpy as np
    import PIL.Image

    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_pair(
    path: Path, reference: Path | None, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels of an image and its reference, which must have one size."""
    if reference is None:
        raise UsageError(f"expert {name} compares with a reference, and {path} has none")
    distorted, original = read_pixels(path), read_pixels(reference)
    if distorted.shape != original.shape:
        raise StimulusError(
            f"{path} has {distorted.shape[1]} x {distorted.shape[0]} pixels and its reference "
            f"{original.shape[1]} x {original.shape[0]}: expert {name} needs equal sizes; "
            "resize with --iqa-resize reference"
        )
    return distorted, original


def _own(expert: Expert, _found: Mapping[WeightFile, Path], _device: str) -> Score:
    from iqa_checks.experts.classic import WITH_REFERENCE, WITHOUT_REFERENCE

    if expert.reference == "none":
        alone = WITHOUT_REFERENCE[expert.metric]
        return lambda path, _reference: alone(read_pixels(path))
    compare = WITH_REFERENCE[expert.metric]
    return lambda path, reference: compare(*read_pair(path, reference, expert.name))


def _piq(expert: Expert, _found: Mapping[WeightFile, Path], device: str) -> Score:
    piq = require("piq", f"expert {expert.name}")
    metric = getattr(piq, expert.metric)
    return _of_tensors(lambda x, y: metric(x, y, data_range=1.0), expert, device)


def _pyiqa(expert: Expert, found: Mapping[WeightFile, Path], device: str) -> Score:
    require("torch", f"expert {expert.name}")
    with quiet():
        pyiqa = require("pyiqa", f"expert {expert.name}")
        with staged(dict(found)):
            metric = pyiqa.create_metric(expert.metric, device=_device(device))
    if metric.lower_better != expert.lower_better:
        raise UsageError(
            f"pyiqa says that lower {expert.metric} is better: {metric.lower_better}, and we say "
            f"{expert.lower_better}; correct the line in iqa_checks/experts/registry.py"
        )
    call = metric if expert.reference == "full" else lambda x, _y: metric(x)
    return _of_tensors(call, expert, device)


def _torchscript(expert: Expert, found: Mapping[WeightFile, Path], device: str) -> Score:
    torch = require("torch", f"expert {expert.name}")
    (path,) = found.values()
    module = torch.jit.load(str(path), map_location=device).eval()
    return _of_tensors(module, expert, device)


ROUTES: dict[Route, Callable[[Expert, Mapping[WeightFile, Path], str], Score]] = {
    "own": _own,
    "piq": _piq,
    "pyiqa": _pyiqa,
    "torchscript": _torchscript,
}


def _of_tensors(call: Callable[[Any, Any], Any], expert: Expert, device: str) -> Score:
    """One image at a time, RGB in 0..1, float32, with the same random crops for every image."""
    torch = require("torch", f"expert {expert.name}")

    def tensor(pixels: NDArray[np.uint8]) -> Any:
        return (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255).to(device)

    def score(path: Path, reference: Path | None) -> float:
        if expert.reference == "full":
            images = [tensor(pixels) for pixels in read_pair(path, reference, expert.name)]
        else:
            images = [tensor(read_pixels(path)), None]
        torch.manual_seed(SEED)
        with torch.inference_mode(), quiet():
            return float(call(*images))

    return score


def _device(device: str) -> Any:
    import torch

    return torch.device(device)


@contextlib.contextmanager
def quiet() -> Any:
    """Metric packages print when they load and warn when they run; a report is no place for it."""
    import warnings

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
