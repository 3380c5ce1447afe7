"""From the name of an expert to a function of image files, by the route of its registry line.

Packages are imported here on first use, and weights must be at hand before any is built.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import StimulusError, UsageError
from iqa_checks.experts.packages import require
from iqa_checks.experts.weights import WeightFile, find_all, staged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.experts.registry import Expert, Route

Pairs = Sequence[tuple[Path, "Path | None"]]
"""Distorted images, each with its reference where the metric takes one."""
Score = Callable[[Pairs], list[float]]
"""Raw values of image files. Images of equal size go through a network together."""

BATCH_PIXELS = 8_000_000  # of one forward pass, so that large images do not fill a GPU
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
        return lambda pairs: [alone(read_pixels(path)) for path, _ in pairs]
    compare = WITH_REFERENCE[expert.metric]
    return lambda pairs: [compare(*read_pair(*pair, expert.name)) for pair in pairs]


def _piq(expert: Expert, _found: Mapping[WeightFile, Path], device: str) -> Score:
    piq = require("piq", f"expert {expert.name}")
    metric = getattr(piq, expert.metric)
    return _of_tensors(lambda x, y: metric(x, y, data_range=1.0, reduction="none"), expert, device)


def _pyiqa(expert: Expert, found: Mapping[WeightFile, Path], device: str) -> Score:
    require("torch", f"expert {expert.name}")
    with quiet():
        pyiqa = require("pyiqa", f"expert {expert.name}")
        if expert.metric == "qalign":
            _restore_what_qalign_calls()
        with staged(dict(found)), transformers_kept(qalign=expert.metric == "qalign"):
            metric = pyiqa.create_metric(expert.metric, device=_device(device))
    if metric.lower_better != expert.lower_better:
        raise UsageError(
            f"pyiqa says that lower {expert.metric} is better: {metric.lower_better}, and we say "
            f"{expert.lower_better}; correct the line in iqa_checks/experts/registry.py"
        )
    return _of_tensors(metric, expert, device)


def _restore_what_qalign_calls() -> None:
    """Two methods that transformers removed from its models and pyiqa 0.1.16 calls on Q-Align's.

    The masks they are given are all ones and None, for which they do nothing.
    """
    encoder = require("pyiqa.archs.q_align.visual_encoder", "expert qalign")
    model = encoder.MplugOwlVisualAbstractorModel

    def invert_attention_mask(self: Any, mask: Any) -> Any:
        import torch

        return (1.0 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min

    if not hasattr(model, "invert_attention_mask"):
        model.invert_attention_mask = invert_attention_mask
    if not hasattr(model, "get_head_mask"):
        model.get_head_mask = lambda _self, mask, n_layers: [mask] * n_layers


@contextlib.contextmanager
def transformers_kept(*, qalign: bool) -> Iterator[None]:
    """pyiqa puts a Llama of its own in the place of transformers' for the whole process.

    It does so when its Q-Align is imported, as some other metrics do too (MS-SSIM among them), and
    no other Llama of the process would load any more (`models.in_process`). Here the replacement
    ends with the building of the metric; what Q-Align inherits from it is given to its own class.
    """
    llama = require("transformers.models.llama.modeling_llama", "pyiqa")
    config = require("transformers.models.llama.configuration_llama", "pyiqa")
    owners = (llama, config, llama.LlamaModel, llama.LlamaForCausalLM)
    before = [dict(vars(owner)) for owner in owners]
    if qalign:
        ours = require("pyiqa.archs.q_align.modeling_mplug_owl2", "expert qalign")
        theirs = require("pyiqa.archs.q_align.modeling_llama2", "expert qalign")
        ours.MPLUGOwl2LlamaModel.forward = theirs.model_forward
        theirs.replace_llama_modality_adaptive()  # its import does it, but only the first time
    try:
        yield
    finally:
        for owner, names in zip(owners, before, strict=True):
            for name, value in list(vars(owner).items()):
                if name not in names:
                    delattr(owner, name)
                elif value is not names[name]:
                    setattr(owner, name, names[name])


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


def _of_tensors(call: Callable[..., Any], expert: Expert, device: str) -> Score:
    """RGB in 0..1, float32, with the same random crops for every image.

    Never padded, never resized: only images of one size share a forward pass.
    """
    torch = require("torch", f"expert {expert.name}")

    def pixels(path: Path, reference: Path | None) -> tuple[NDArray[np.uint8], ...]:
        if expert.reference == "full":
            return read_pair(path, reference, expert.name)
        return (read_pixels(path),)

    def tensor(images: Sequence[NDArray[np.uint8]]) -> Any:
        stacked = torch.stack([torch.from_numpy(image.copy()) for image in images])
        return (stacked.permute(0, 3, 1, 2).float() / 255).to(device)

    def score(pairs: Pairs) -> list[float]:
        shown = [pixels(*pair) for pair in pairs]
        values = [0.0] * len(shown)
        for places in _alike([images[0].shape for images in shown]):
            together = [tensor(images) for images in zip(*(shown[k] for k in places), strict=True)]
            torch.manual_seed(SEED)
            with torch.inference_mode(), quiet():
                found = torch.as_tensor(call(*together)).flatten().tolist()
            for k, value in zip(places, found, strict=True):
                values[k] = value
        return values

    return score


def _alike(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Places of images of one size, at most `BATCH_PIXELS` of them together."""
    of_size: dict[tuple[int, ...], list[int]] = {}
    for k, shape in enumerate(shapes):
        of_size.setdefault(shape, []).append(k)
    for shape, places in of_size.items():
        at_once = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(places), at_once):
            yield places[start : start + at_once]


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
