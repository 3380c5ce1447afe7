"""Learned experts are loaded from the files that their registry lines name, and from nowhere else.

Real weights are not at hand: random ones are saved under the right names, and the score must be
that of the very network they were saved from. Values are not claimed. For time, AHIQ and MANIQA
look at one crop with the transformer blocks that they use, and CLIP is narrow.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from skimage import data

from iqa_checks.experts import EXPERTS, find_expert
from iqa_checks.experts.opening import open_expert

torch = pytest.importorskip("torch")
pyiqa = pytest.importorskip("pyiqa")
timm = pytest.importorskip("timm")

Build = Callable[[str, Path], Any]
"""Writes the weight files of an expert into a folder and returns the network they are from."""

RESNET, VIT = "timm/resnet50.a1_in1k", "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """A noisy photograph of 224 x 224, what CLIP and the ViTs see at once, and the photograph."""
    folder = tmp_path_factory.mktemp("pair")
    photo = data.astronaut()[:224, 100:324]
    noise = np.random.default_rng(0).normal(0, 20, photo.shape)
    PIL.Image.fromarray(photo).save(folder / "photo.png")
    PIL.Image.fromarray(np.clip(photo + noise, 0, 255).astype(np.uint8)).save(folder / "noisy.png")
    return folder / "noisy.png", folder / "photo.png"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path) -> list[object]:
    """Empty caches, and no way out: any attempt to reach the network fails and is on record."""
    asked: list[object] = []

    def refuse(_socket: object, address: object, *_: object) -> None:
        asked.append(address)
        raise AssertionError(f"a connection to {address} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_a, **_k: refuse(None, host))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return asked


@pytest.fixture(autouse=True)
def less_to_compute(monkeypatch) -> None:
    configs = pyiqa.default_model_configs.DEFAULT_CONFIGS
    monkeypatch.setitem(configs["ahiq"]["metric_opts"], "num_crop", 1)
    for name in ("maniqa", "maniqa-kadid"):
        monkeypatch.setitem(configs[name]["metric_opts"], "test_sample", 1)
    create = timm.create_model

    def shallow(name: str, **options: Any) -> Any:
        depth = {"depth": 10} if name.startswith("vit") else {}
        return create(name, **options, **depth)

    monkeypatch.setattr(timm, "create_model", shallow)


def _options(name: str) -> dict[str, Any]:
    found = dict(pyiqa.default_model_configs.DEFAULT_CONFIGS[find_expert(name).metric])
    return {key: value for key, value in found["metric_opts"].items() if key != "type"}


def _file(name: str, folder: Path, ending: str = "") -> Path:
    """Where the last file of an expert belongs."""
    path = folder / find_expert(name).weights[-1].name / ending
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _random(network: Any) -> Any:
    """Every number random, so that no score hangs on a default (a zero, a one)."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point() and value.ndim < 2 and "running" not in key:
                value.add_(0.02 * torch.rand(value.shape, generator=generator))
    return network.eval()


def _backbone(network: Any, repository: str, folder: Path) -> None:
    from safetensors.torch import save_file

    path = folder / repository / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, path)


def _without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda n, **k: create(n, **k | {"pretrained": False}))


def _ahiq(name: str, folder: Path) -> Any:
    from pyiqa.archs.ahiq_arch import AHIQ

    with pytest.MonkeyPatch.context() as patch:
        _without_downloads(patch)
        network = _random(AHIQ(**_options(name), pretrained=False))
    _backbone(network.resnet50, RESNET, folder)
    _backbone(network.vit, VIT, folder)
    heads = {f"{part}_model_state_dict": getattr(network, part).state_dict()
             for part in ("regressor", "deform_net")}  # fmt: skip
    torch.save(heads, _file(name, folder))
    return network


def _maniqa(name: str, folder: Path) -> Any:
    from pyiqa.archs.maniqa_arch import MANIQA

    with pytest.MonkeyPatch.context() as patch:
        _without_downloads(patch)
        network = _random(MANIQA(**_options(name), pretrained=False))
    _backbone(network.vit, VIT, folder)
    torch.save(network.state_dict(), _file(name, folder))
    return network


def _topiq(name: str, folder: Path) -> Any:
    from pyiqa.archs.topiq_arch import CFANet

    network = _random(CFANet(**_options(name), pretrained=False, backbone_pretrain=False))
    _backbone(timm.create_model("resnet50", pretrained=False), RESNET, folder)
    torch.save({"params": network.state_dict()}, _file(name, folder))
    return network


def _lpips(name: str, folder: Path) -> Any:
    from pyiqa.archs import lpips_arch
    from torchvision import models

    net = _options(name)["net"]
    trunk = {"alex": models.alexnet, "vgg": models.vgg16}[net](weights=None)
    torch.save(trunk.state_dict(), folder / find_expert(name).weights[0].name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips_arch.models, trunk.__class__.__name__.lower()
                      if net == "alex" else "vgg16", lambda **_: trunk)  # fmt: skip
        network = lpips_arch.LPIPS(**_options(name), pretrained=False)
    with torch.no_grad():
        for head in network.lins:
            head.model[-1].weight.uniform_()
    heads = {k: v for k, v in network.state_dict().items() if k.startswith("lin")}
    torch.save(heads, _file(name, folder))
    return network.eval()


def _whole(arch: str, key: str | None = None, **options: Any) -> Build:
    """A network that is one file: its state, bare or under ``key``."""

    def build(name: str, folder: Path) -> Any:
        module, _, kind = arch.partition(":")
        made = getattr(importlib.import_module(f"pyiqa.archs.{module}"), kind)
        network = _random(made(**{**_options(name), "pretrained": False, **options}))
        state = network.state_dict()
        torch.save(state if key is None else {key: state}, _file(name, folder))
        return network

    return build


def _niqe(name: str, folder: Path) -> Any:
    from pyiqa.archs.niqe_arch import NIQE
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    spread = rng.normal(size=(36, 36))
    path = _file(name, folder)
    savemat(path, {"mu_prisparam": rng.uniform(size=(1, 36)), "cov_prisparam": spread @ spread.T})
    return NIQE(**_options(name), pretrained_model_path=str(path))


def _brisque(name: str, folder: Path) -> Any:
    from pyiqa.archs.brisque_arch import BRISQUE

    path = _file(name, folder)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.rand((50, 36), generator=generator) * 2 - 1
    torch.save((torch.rand(50, generator=generator) * 99, vectors), path)
    return BRISQUE(**_options(name), pretrained_model_path=str(path))


def _liqe(name: str, folder: Path) -> Any:
    """CLIP of full vocabulary, narrow; the package knows the official file by its hash."""
    from pyiqa.archs import clip_model, liqe_arch

    torch.manual_seed(0)
    clip = clip_model.CLIP(64, 224, 2, 64, 32, 77, 49408, 64, 1, 2).float()
    path = folder / "ViT-B-32.pt"
    words = torch.zeros((1, 77), dtype=torch.int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing
        torch.jit.trace(clip.eval(), (torch.rand(1, 3, 224, 224), words)).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    clip_model._MODELS["ViT-B/32"] = f"https://absent.invalid/{digest}/ViT-B-32.pt"
    (folder / "direct").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            liqe_arch, "load", lambda *_: clip_model.build_model(clip.state_dict()).float()
        )
        patch.setattr(liqe_arch, "DEFAULT_CACHE_DIR", str(folder / "direct"))
        options = {**_options(name), "pretrained": False, "mtl": name == "liqe_mix"}
        network = liqe_arch.LIQE(**options).eval()
    torch.save({"params": network.state_dict()}, _file(name, folder))
    return network


BUILDS: dict[str, Build] = {
    "ahiq": _ahiq,
    "maniqa": _maniqa,
    "maniqa-kadid": _maniqa,
    "topiq_fr": _topiq,
    "topiq_fr-pipal": _topiq,
    "topiq_nr": _topiq,
    "lpips": _lpips,
    "lpips-vgg": _lpips,
    "pieapp": _whole("pieapp_arch:PieAPP"),
    "msswd": _whole("msswd_arch:MS_SWD_learned", "net_dict"),
    "musiq": _whole("musiq_arch:MUSIQ"),
    "musiq-spaq": _whole("musiq_arch:MUSIQ"),
    "cnniqa": _whole("cnniqa_arch:CNNIQA", "params", pretrained=None),
    "niqe": _niqe,
    "brisque": _brisque,
    "liqe": _liqe,
    "liqe_mix": _liqe,
}


@pytest.mark.parametrize("name", BUILDS)
def test_the_score_is_that_of_the_network_in_the_files(name, tmp_path, pair, offline, monkeypatch):
    from pyiqa.archs import clip_model

    monkeypatch.setattr(clip_model, "_MODELS", dict(clip_model._MODELS))
    network = BUILDS[name](name, tmp_path)
    images = [_tensor(path) for path in pair]
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = float(
            network(*(images if find_expert(name).reference == "full" else images[:1]))
        )
    score = open_expert(name, tmp_path, "cpu")
    shown = [pair[::-1], pair] if find_expert(name).batched else [pair]
    assert score(shown)[-1] == pytest.approx(expected, rel=1e-4, abs=1e-6)  # whatever is beside it
    assert expected not in (0.0, 1.0)  # a network that says nothing would prove nothing
    assert offline == []
    assert not (tmp_path / "torch").exists()  # nothing is left in the caches of the packages


def _tensor(path: Path) -> Any:
    pixels = np.array(PIL.Image.open(path))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_qalign_is_loaded_from_its_folder(tmp_path, pair, offline):
    """A tiny model of its architecture, in the layout of its repository."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaModel

    from iqa_checks.experts import opening, weights

    folder = tmp_path / "q-future/one-align"
    folder.mkdir(parents=True)
    n_words = _words(folder)
    file = find_expert("qalign").weights[0]
    before = LlamaModel.forward
    # it takes its tokenizer from the folder
    with opening.quiet(), weights.staged({file: folder}), opening.transformers_kept(qalign=True):
        from pyiqa.archs.q_align import configuration_mplug_owl2 as configuration
        from pyiqa.archs.q_align.modeling_mplug_owl2 import MPLUGOwl2LlamaForCausalLM

        torch.manual_seed(0)
        network = MPLUGOwl2LlamaForCausalLM(_tiny(configuration, n_words)).half().eval()
    network.save_pretrained(folder)
    score = open_expert("qalign", tmp_path, "cpu")  # mends what the next line calls, too
    with torch.inference_mode():
        expected = float(network.score([PIL.Image.open(pair[0])]))
    assert score([pair]) == [pytest.approx(expected, rel=1e-3)]  # half precision
    assert 1 < expected < 5
    assert offline == []
    assert LlamaModel.forward is before
    assert AutoModelForCausalLM.from_config(
        LlamaConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    ).model.layers  # others still load


def _tiny(configuration: Any, n_words: int) -> Any:
    side = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = configuration.MplugOwlVisionConfig(
        **side, num_hidden_layers=2, image_size=56, patch_size=14
    )
    abstractor = configuration.MplugOwlVisualAbstractorConfig(
        **side, num_hidden_layers=1, num_learnable_queries=4, encoder_hidden_size=32, grid_size=4
    )
    return configuration.MPLUGOwl2Config(
        **side,
        vocab_size=n_words,
        num_hidden_layers=2,
        max_position_embeddings=256,
        visual_config={"visual_model": vision.to_dict(), "visual_abstractor": abstractor.to_dict()},
    )


def _words(folder: Path) -> int:
    """A tokenizer of single letters, and the image processor; how many tokens there are."""
    from tokenizers import Tokenizer, models
    from transformers import CLIPImageProcessor

    tokens = ["<unk>", "<s>", "</s>", *"\u2581\n?:.", *map(chr, range(65, 123))]
    vocabulary = {token: k for k, token in enumerate(tokens)}
    Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    size = {"height": 56, "width": 56}
    CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=size).save_pretrained(folder)
    return len(tokens)


def test_every_expert_with_weights_is_loaded_in_a_test():
    with_files = {n for n, e in EXPERTS.items() if e.weights and e.route == "pyiqa"}
    assert with_files == set(BUILDS) | {"qalign"} | {"dists", "stlpips", "stlpips-vgg"}
