"""The options of the command line: a line each, and what they add up to.

To add an option, add a line to `OPTIONS` and a field to `Settings`. Nothing heavy is imported and
pytest is not needed: any source of values by name will do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from iqa_checks.datasets import Difficult
    from iqa_checks.settings import Settings


class Option(NamedTuple):
    """Spellings of an option, and what argparse shall know of it."""

    names: tuple[str, ...]
    attributes: dict[str, Any]


def opt(*names: str, **attributes: Any) -> Option:
    return Option(names, attributes)


# fmt: off
OPTIONS: tuple[Option, ...] = (
    opt("--model", "--iqa-model", dest="iqa_model", metavar="MODEL",
        help="a name of models.yaml, openai:ID, weights (FOLDER, hub:ORG/NAME), observer"),
    opt("--iqa-base-url", action="append", default=[], metavar="URL",
        help="OpenAI-compatible endpoint; give it several times to share the load"),
    opt("--iqa-engine", default="", metavar="NAME|COMMAND",
        help="what serves local weights: vllm, transformers, sglang, lmdeploy, in_process, or "
             "'mycmd --model {model} --port {port}' (default: what suits)"),
    opt("--iqa-engine-timeout", type=float, default=600.0, metavar="S",
        help="seconds that it may take to get ready (default 600)"),
    opt("--iqa-trust-remote-code", action="store_true",
        help="run the code that comes with a model's weights"),
    opt("--iqa-ratings", metavar="FILE", help="CSV of your own images: image, mos[, reference]"),
    opt("--iqa-columns", default="", metavar="OURS=THEIRS,...", help="column names of that file"),
    opt("--iqa-scale", metavar="LOW:HIGH", help="scale of its scores"),
    opt("--iqa-polarity", choices=("higher_better", "lower_better"), help="which end is good"),
    opt("--iqa-attribute", default="general", metavar="NAME",
        help="what its scores are about: general, structure, color_difference, ..."),
    opt("--iqa-resize", choices=("reference",),
        help="resize distorted images to their reference; recorded in the results"),
    opt("--iqa-data", metavar="DIR", help="folder of published data sets, or one set's own folder"),
    opt("--iqa-whole", action="store_true", help="refuse a published set that is not complete"),
    opt("--iqa-sets", default="", metavar="NAME,...", help="judge these stimulus sets only"),
    opt("--iqa-selection", action="append", default=[], metavar="difficult|[NAME=]FILE|DIR",
        help="difficult samples (Eqs. 3-5), or a list such as FR_KADID_sampled_uniform.txt"),
    opt("--iqa-experts", default="", metavar="A,B", help="experts that select difficult samples"),
    opt("--iqa-rivals", default="", metavar="A,B",
        help="experts that the model is compared with (-m experts; default: the paper's)"),
    opt("--iqa-best", metavar="FILE",
        help="results.json of all prompting systems: the best one is compared with experts"),
    opt("--iqa-lambda", type=float, default=0.01, metavar="X",
        help="weight of diversity among difficult samples (default 0.01)"),
    opt("--iqa-div", choices=("min", "mean", "cosine_to_mean"),
        help="their distance to the picks so far (default mean)"),
    opt("--iqa-ray", metavar="ADDRESS", help="Ray cluster that computes experts and features"),
    opt("--iqa-embedder", default="", metavar="NAME",
        help="their features: clip-vit-b-32, offline"),
    opt("--iqa-weights", metavar="DIR", help="folder of the weight files of experts and CLIP"),
    opt("--iqa-device", default="cpu", metavar="DEVICE", help="where experts run (default cpu)"),
    opt("--iqa-list", choices=("sets", "models", "experts", "strategies"),
        help="list what there is, and end"),
    opt("--iqa-photos", metavar="DIR",
        help="folder of pristine photographs that make the built-in sets; no ratings needed"),
    opt("--iqa-full", action="store_true", help="150 stimuli a set instead of 30"),
    opt("--iqa-limit", type=int, metavar="N", help="at most N stimuli a set"),
    opt("--seed", "--iqa-seed", dest="iqa_seed", type=int, default=0, metavar="N",
        help="decides stimuli, pairs and orders (default 0)"),
    opt("--iqa-preset", choices=("sound", "paper"), default="sound",
        help="sound statistics, or the published procedure with its quirks"),
    opt("--iqa-scaling", default="thurstone_map", metavar="METHOD",
        help="from comparisons to a quality scale"),
    opt("--iqa-repeats", type=int, default=1, metavar="R", help="ask every trial R times"),
    opt("--iqa-soft", action="store_true",
        help="expected ratings and shares of preference, from the model's token probabilities"),
    opt("--iqa-strategies", metavar="FILE", help="YAML with prompting strategies of your own"),
    opt("--iqa-store", default=".iqa/replies.sqlite", metavar="PATH|URL", help="the reply store"),
    opt("--iqa-reuse", action="store_true", help="use replies of finished runs, ask the rest"),
    opt("--iqa-replay", action="store_true", help="use stored replies only, ask nothing"),
    opt("--iqa-fresh", action="store_true", help="do not continue an interrupted run"),
    opt("--iqa-concurrency", type=int, default=32, metavar="N", help="most requests at once"),
    opt("--iqa-budget", type=int, metavar="N", help="most new requests"),
    opt("--iqa-timeout", type=float, default=120.0, metavar="S", help="seconds for one request"),
    opt("--iqa-price", metavar="PROMPT:REPLY",
        help="US dollars for a million prompt and reply tokens, for estimates and cost gates"),
    opt("--iqa-gates", metavar="FILE", help="YAML of gates by cell; see fixtures/gates"),
    opt("--iqa-min-srcc", type=float, metavar="X", help="fail cells significantly below"),
    opt("--iqa-min-plcc", type=float, metavar="X", help="fail cells significantly below"),
    opt("--iqa-max-unparsed", type=float, default=0.1, metavar="X",
        help="largest share of unusable replies (default 0.1)"),
    opt("--iqa-strict", action="store_true", help="fail on INCONCLUSIVE"),
    opt("--iqa-alpha", type=float, default=0.05, metavar="X", help="false-alarm rate of a run"),
    opt("--iqa-cache", metavar="DIR", help="folder for generated images"),
    opt("--iqa-save", metavar="NAME", help="save the run as the next numbered baseline NAME"),
    opt("--iqa-save-partial", action="store_true", help="save a partial or failed run too"),
    opt("--iqa-compare", metavar="NAME|N|FILE", help="fail on cells significantly worse than it"),
    opt("--iqa-storage", default=".iqa/baselines", metavar="DIR", help="folder of baselines"),
    opt("--iqa-goal", choices=("regression", "non_inferiority", "superiority"),
        default="regression", help="what the comparison must show"),
    opt("--iqa-margin", type=float, default=0.05, metavar="X",
        help="a drop that matters (default 0.05)"),
    opt("--iqa-compare-statistic", choices=("srcc", "plcc", "both"), default="srcc",
        help="what is compared: the headline SRCC, the PLCC, or both"),
    opt("--iqa-compare-method", choices=("jackknife", "bootstrap"), default="jackknife",
        help="standard error of a pooled difference"),
    opt("--iqa-power", type=float, metavar="DROP",
        help="with --iqa-compare: what it takes to see that drop; asks nothing"),
    opt("--iqa-plan", action="store_true", help="show what would be asked and ask nothing"),
    opt("--iqa-out", metavar="DIR", help="write results.json, results.md and results.csv there"),
)
# fmt: on


def settings_from(get: Callable[[str], Any]) -> Settings:
    """The options as one record; ``get`` gives the value of one by its name (``iqa_model``).

    Raises `UsageError` for a value that cannot be read.
    """
    from iqa_checks.datasets import StimulusSource, as_attribute, default_cache, read_columns
    from iqa_checks.layouts import parse_scale
    from iqa_checks.models import default_model
    from iqa_checks.settings import Settings, read_price

    statistic: Any = get("iqa_compare_statistic")
    difficult = _difficult(get)
    source = StimulusSource(
        cache_dir=Path(get("iqa_cache") or default_cache()),
        ratings=Path(get("iqa_ratings")) if get("iqa_ratings") else None,
        columns=read_columns(get("iqa_columns")),
        scale=parse_scale(get("iqa_scale")) if get("iqa_scale") else None,
        polarity=get("iqa_polarity"),
        attribute=as_attribute(get("iqa_attribute")),
        resize_to_reference=get("iqa_resize") == "reference",
        full=get("iqa_full"),
        limit=get("iqa_limit"),
        seed=get("iqa_seed"),
        photos=Path(get("iqa_photos")) if get("iqa_photos") else None,
        data=Path(get("iqa_data")) if get("iqa_data") else None,
        whole=get("iqa_whole"),
        sets=_listed(get("iqa_sets")),
        selections=tuple(s for s in get("iqa_selection") if s != "difficult"),
        difficult=difficult if "difficult" in get("iqa_selection") else None,
    )
    policy: Any = "replay" if get("iqa_replay") else "reuse" if get("iqa_reuse") else "ask"
    default, reason = default_model()
    return Settings(
        model=get("iqa_model") or default,
        model_reason="" if get("iqa_model") else reason,
        source=source,
        seed=get("iqa_seed"),
        preset=get("iqa_preset"),
        scaling=get("iqa_scaling"),
        repeats=get("iqa_repeats"),
        soft=get("iqa_soft"),
        strategies=Path(get("iqa_strategies")) if get("iqa_strategies") else None,
        base_urls=tuple(get("iqa_base_url")),
        engine=get("iqa_engine"),
        engine_timeout_s=get("iqa_engine_timeout"),
        trust_remote_code=get("iqa_trust_remote_code"),
        store=get("iqa_store"),
        policy=policy,
        fresh=get("iqa_fresh"),
        concurrency=get("iqa_concurrency"),
        budget=get("iqa_budget"),
        timeout_s=get("iqa_timeout"),
        price=read_price(get("iqa_price")) if get("iqa_price") else None,
        gates=Path(get("iqa_gates")) if get("iqa_gates") else None,
        min_srcc=get("iqa_min_srcc"),
        min_plcc=get("iqa_min_plcc"),
        max_unparsed=get("iqa_max_unparsed"),
        strict=get("iqa_strict"),
        alpha=get("iqa_alpha"),
        out=Path(get("iqa_out")) if get("iqa_out") else None,
        compare=get("iqa_compare"),
        storage=Path(get("iqa_storage")),
        goal=get("iqa_goal"),
        margin=get("iqa_margin"),
        difficult=difficult,
        rivals=_listed(get("iqa_rivals")),
        best=Path(get("iqa_best")) if get("iqa_best") else None,
        statistics=("srcc", "plcc") if statistic == "both" else (statistic,),
        method=get("iqa_compare_method"),
    )


def _difficult(get: Callable[[str], Any]) -> Difficult:
    from iqa_checks.datasets import Difficult

    return Difficult(
        experts=_listed(get("iqa_experts")),
        embedder=get("iqa_embedder"),
        weights=Path(get("iqa_weights")) if get("iqa_weights") else None,
        device=get("iqa_device"),
        preset=get("iqa_preset"),
        lam=get("iqa_lambda"),
        div=get("iqa_div"),
        ray_address=get("iqa_ray"),
    )


def _listed(text: str) -> tuple[str, ...]:
    """Read "A, B"."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
