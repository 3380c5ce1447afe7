"""Which expert metrics there are. To add one, add a line to `EXPERTS`.

A bare name ("ssim") is a permissive implementation where there is one: our own on numpy and
scikit-image, or piq's. Its counterpart in pyiqa, whose licence is non-commercial, is
"pyiqa-ssim". Names that exist only through pyiqa ("dists") are bare; `licence` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_checks.errors import known_names
from iqa_checks.experts.weights import WeightFile

Route = Literal["own", "piq", "pyiqa", "torchscript"]

PYIQA = "PolyForm Noncommercial 1.0.0"
PIQ = "Apache-2.0"
OWN = "Apache-2.0 (scikit-image: BSD-3-Clause)"


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert metric and all that a reader of its scores must know.

    ``metric`` is its name inside its package, and ``revision`` counts changes of our own code
    that change scores. ``lower_better`` is about the raw value; scores handed out are negated
    then. Images go in at their own size, RGB. ``trained_on`` lists data sets on which it was
    trained, so that tables can star those results. ``batched``: a score does not depend on the
    images that share a forward pass, so an accelerator may be given several at once.
    """

    name: str
    reference: Literal["full", "none"]
    route: Route
    metric: str
    licence: str
    lower_better: bool = False
    weights: tuple[WeightFile, ...] = ()
    trained_on: tuple[str, ...] = ()
    revision: int = 1
    note: str = ""
    batched: bool = True

    @property
    def package(self) -> str:
        """The distribution that computes it."""
        names = {"own": "scikit-image", "piq": "piq", "pyiqa": "pyiqa", "torchscript": "torch"}
        return names[self.route]

    @property
    def dtype(self) -> str:
        return "float64" if self.route == "own" else "float32"


def _own(name: str, *, lower: bool = False, nr: bool = False, note: str = "") -> Expert:
    return Expert(name, "none" if nr else "full", "own", name, OWN, lower_better=lower, note=note)


def _piq(name: str, metric: str, *, lower: bool = False) -> Expert:
    return Expert(name, "full", "piq", metric, PIQ, lower_better=lower)


def _pyiqa(
    name: str,
    *weights: WeightFile,
    metric: str = "",
    lower: bool = False,
    nr: bool = False,
    licence: str = PYIQA,
    trained: tuple[str, ...] = (),
    note: str = "",
    batched: bool = True,
) -> Expert:
    reference: Literal["full", "none"] = "none" if nr else "full"
    return Expert(
        name, reference, "pyiqa", metric or name, licence, lower, weights, trained, note=note,
        batched=batched,
    )  # fmt: skip


_ALEXNET = WeightFile("alexnet-owt-7be5be79.pth", 233, "torchvision")
_VGG16 = WeightFile("vgg16-397923af.pth", 528, "torchvision")
_RESNET50 = WeightFile("timm/resnet50.a1_in1k/model.safetensors", 102, "huggingface")
_VIT_B8 = WeightFile(
    "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k/model.safetensors", 346, "huggingface"
)
_CLIP = WeightFile("ViT-B-32.pt", 338, "clip")
_KADID = ("FR-KADID", "Aug-KADID", "NR-KADID")


def _iqa(name: str, megabytes: float | None = None) -> WeightFile:
    """A file of chaofengc/IQA-PyTorch-Weights."""
    return WeightFile(name, megabytes, "pyiqa")


def _carried(name: str, megabytes: float) -> WeightFile:
    return WeightFile(name, megabytes, "stlpips-pytorch")


_ALL = (
    # No weights, permissive
    _own("psnr", note="all RGB values; at most 100 dB, for equal images"),
    _own("ssim", note="luma, no downsampling"),
    _own("ms_ssim", note="luma; shorter side at least 176"),
    _own("gmsd", lower=True, note="luma, halved first"),
    _own("ciede2000", lower=True, note="mean CIEDE2000 colour difference over pixels"),
    _own("blur_effect", lower=True, nr=True, note="perceptual blur alone (Crete et al. 2007)"),
    _own("noise_sigma", lower=True, nr=True, note="noise SD alone (Immerkaer 1996)"),
    _piq("fsim", "fsim"),
    _piq("vsi", "vsi"),
    _piq("mdsi", "mdsi", lower=True),
    _piq("haarpsi", "haarpsi"),
    _piq("vif_p", "vif_p"),
    _piq("dss", "dss"),
    _piq("piq-ssim", "ssim"),
    _piq("piq-ms_ssim", "multi_scale_ssim"),
    _piq("piq-gmsd", "gmsd", lower=True),
    # No weights, through pyiqa
    _pyiqa("pyiqa-psnr", metric="psnr"),
    _pyiqa("psnry", metric="psnry"),
    _pyiqa("pyiqa-ssim", metric="ssim"),
    _pyiqa("ssimc", metric="ssimc"),
    _pyiqa("pyiqa-ms_ssim", metric="ms_ssim"),
    _pyiqa("cw_ssim"),
    _pyiqa("pyiqa-fsim", metric="fsim"),
    _pyiqa("pyiqa-vsi", metric="vsi"),
    _pyiqa("vif"),
    _pyiqa("pyiqa-gmsd", metric="gmsd", lower=True),
    _pyiqa("nlpd", lower=True),
    _pyiqa("mad", lower=True),
    _pyiqa("piqe", lower=True, nr=True),
    # Weights that ride in the package stlpips-pytorch
    _pyiqa("stlpips", _carried("alex_shift_tolerant.pth", 9.9), lower=True),
    _pyiqa("stlpips-vgg", _carried("vgg_shift_tolerant.pth", 58.9), lower=True),
    # Weights to get: full-reference
    _pyiqa("lpips", _ALEXNET, _iqa("LPIPS_v0.1_alex-df73285e.pth", 0.01), lower=True),
    _pyiqa("lpips-vgg", _VGG16, _iqa("LPIPS_v0.1_vgg-a78928a0.pth", 0.01), lower=True),
    _pyiqa(
        "dists", _VGG16, _iqa("DISTS_weights-f5e65c96.pth", 0.01), lower=True,
        trained=("FR-KADID", "NR-KADID"),
    ),
    _pyiqa("ahiq", _RESNET50, _VIT_B8, _iqa("AHIQ_vit_p8_epoch33-da3ea303.pth", 109)),
    _pyiqa("topiq_fr", _RESNET50, _iqa("cfanet_fr_kadid_res50-2c4cc61d.pth", 145), trained=_KADID),
    _pyiqa("topiq_fr-pipal", _RESNET50, _iqa("cfanet_fr_pipal_res50-69bbe5ba.pth", 145)),
    _pyiqa("pieapp", _iqa("PieAPPv0.1-0937b014.pth", 274), lower=True),
    _pyiqa("msswd", _iqa("msswd_weights.pth", 0.2), lower=True, trained=("SPCD",)),
    # Weights to get: no-reference
    _pyiqa("niqe", _iqa("niqe_modelparameters.mat"), lower=True, nr=True),
    _pyiqa("brisque", _iqa("brisque_svm_weights.pth"), lower=True, nr=True),
    _pyiqa("cnniqa", _iqa("CNNIQA_koniq10k-e6f14c91.pth", 2.9), nr=True),
    _pyiqa("musiq", _iqa("musiq_koniq_ckpt-e95806b9.pth", 109), nr=True),
    _pyiqa("musiq-spaq", _iqa("musiq_spaq_ckpt-358bb6af.pth", 109), nr=True, trained=("SPAQ",)),
    _pyiqa("maniqa", _VIT_B8, _iqa("ckpt_koniq10k.pt"), nr=True),
    _pyiqa("maniqa-kadid", _VIT_B8, _iqa("ckpt_kadid10k.pt"), nr=True, trained=_KADID),
    _pyiqa("topiq_nr", _RESNET50, _iqa("cfanet_nr_koniq_res50-9a73138b.pth", 181), nr=True),
    _pyiqa(
        "liqe", _CLIP, _iqa("liqe_koniq.pt"), nr=True, batched=False,
        note="KonIQ weights; the paper's tables use the authors', which are liqe_mix",
    ),
    _pyiqa(
        "liqe_mix", _CLIP, _iqa("liqe_mix.pt"), nr=True, batched=False, trained=("NR-KADID",),
        note="the paper stars it on SPAQ too; its author names six sets, SPAQ not among them",
    ),
    _pyiqa(
        "qalign", WeightFile("q-future/one-align", 16_000, "huggingface"), nr=True, batched=False,
        licence=f"{PYIQA}; weights S-Lab or MIT, the two sources differ",
        trained=("SPAQ", "NR-KADID"), note="7B parameters: wants a GPU",
    ),
    # Colour difference models whose code is not in any package: TorchScript exports of one's own
    Expert(
        "cdnet", "full", "torchscript", "cdnet", "weights withheld by the authors", True,
        (WeightFile("cdnet.torchscript.pt", None, "own export"),), ("SPCD",),
        batched=False,
    ),
    Expert(
        "cd_flow", "full", "torchscript", "cd_flow", "no licence file", True,
        (WeightFile("cd_flow.torchscript.pt", None, "own export"),), ("SPCD",),
        batched=False,
    ),
)  # fmt: skip

EXPERTS: dict[str, Expert] = {expert.name: expert for expert in _ALL}


def find_expert(name: str) -> Expert:
    """The expert of that name; `UsageError` that lists the known ones otherwise."""
    if name not in EXPERTS:
        raise known_names("expert", name, EXPERTS)
    return EXPERTS[name]


def expert_table() -> list[tuple[str, str, str, str, str, str]]:
    """Lines of ``--iqa-list experts``: name, reference, package, licence, files, trained on."""
    head = ("expert", "reference", "package", "licence", "weight files", "trained on")
    lines = [
        (
            expert.name,
            expert.reference,
            expert.package,
            expert.licence,
            ", ".join(str(file) for file in expert.weights) or "none",
            ", ".join(expert.trained_on),
        )
        for expert in EXPERTS.values()
    ]
    return [head, *lines]
