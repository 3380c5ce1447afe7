"""What a run was asked to do: the options of the command line as one record, and their checks.

Nothing heavy is imported here, so that pytest can read options without loading numpy.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import MissingExtra, UsageError, known_names

if TYPE_CHECKING:
    from iqa_checks.broker import LocalAsker, Policy
    from iqa_checks.cell import Cell, Selection
    from iqa_checks.compare import StatisticName
    from iqa_checks.comparison import Method
    from iqa_checks.datasets import Difficult, StimulusSource
    from iqa_checks.decision import Goal
    from iqa_checks.gate import Gate
    from iqa_checks.gate_file import GateLine
    from iqa_checks.models import Access, ModelSpec
    from iqa_checks.prompts import Scenario
    from iqa_checks.protocols import Preset
    from iqa_checks.stimuli import StimulusSet


MOST_IMAGES_CHECKED = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of a run. ``model_reason`` says why this model, where none was named.

    Units: ``timeout_s`` in seconds, ``budget`` in new requests, ``price`` in US dollars for a
    million prompt and reply tokens.
    """

    model: str
    source: StimulusSource
    seed: int = 0
    preset: Preset = "sound"
    scaling: str = "thurstone_map"
    repeats: int = 1
    soft: bool = False
    strategies: Path | None = None
    base_urls: tuple[str, ...] = ()
    engine: str = ""
    engine_timeout_s: float = 600.0
    trust_remote_code: bool = False
    store: str = ".iqa/replies.sqlite"
    policy: Policy = "ask"
    fresh: bool = False
    concurrency: int = 32
    budget: int | None = None
    timeout_s: float = 120.0
    price: tuple[float, float] | None = None
    gates: Path | None = None
    min_srcc: float | None = None
    min_plcc: float | None = None
    max_unparsed: float = 0.1
    strict: bool = False
    alpha: float = 0.05
    out: Path | None = None
    compare: str | None = None
    storage: Path = Path(".iqa/baselines")
    goal: Goal = "regression"
    margin: float = 0.05
    model_reason: str = ""
    statistics: tuple[StatisticName, ...] = ("srcc",)
    method: Method = "jackknife"
    difficult: Difficult | None = None
    rivals: tuple[str, ...] = ()
    best: Path | None = None

    @property
    def choosing(self) -> Difficult:
        """How difficult samples are chosen, where a suite asks for them."""
        from iqa_checks.datasets import Difficult

        return self.difficult or Difficult(preset=self.preset)

    @property
    def on_difficult_samples(self) -> StimulusSource:
        """The run's source, whatever ``--iqa-selection`` says."""
        return replace(self.source, difficult=self.choosing)

    @property
    def identity(self) -> str:
        """What makes an interrupted run this run: with the model, decides what is resumed."""
        parts = [self.seed, self.preset, self.repeats]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def spec(self) -> ModelSpec:
        """The model, at the price of ``--iqa-price`` where one is given."""
        from iqa_checks.models import find_model

        found = find_model(self.model)
        return found if self.price is None else replace(found, price_per_million=self.price)

    @property
    def access(self) -> Access:
        """How the model is reached, or served for this run."""
        from iqa_checks.models import Access, Serving

        logs = Path(".iqa/engines") if self.out is None else self.out / "engines"
        serving = Serving(self.engine, self.engine_timeout_s, self.trust_remote_code, logs)
        return Access(base_urls=self.base_urls, timeout_s=self.timeout_s, serving=serving)

    def check_key(self) -> None:
        """`UsageError` where the model needs a key that the environment lacks.

        For runs that ask: neither a plan nor a replay needs one.
        """
        from iqa_checks.models import is_served_here

        if self.spec.provider == "openai" and not is_served_here(self.spec, self.access):
            from iqa_checks.models.openai_chat import check_key

            check_key(self.spec, self.access)

    def stimuli(
        self, name: str, scenario: Scenario, selection: Selection = "uniform"
    ) -> StimulusSet:
        """The stimuli of a cell. ``difficult``: whatever ``--iqa-selection`` says.

        Raises `StimuliAbsent` where the set, or what selects its difficult samples by default, is
        not at hand, and `StimulusError` or `UsageError` as `iqa_checks.datasets.stimuli_for`.
        """
        if selection == "difficult":
            from iqa_checks.rivals import difficult_samples

            return difficult_samples(name, scenario, self)
        from iqa_checks.datasets import stimuli_for

        return stimuli_for(name, scenario, self.source)

    def gate(self, cell: Cell, n_cells: int) -> Gate:
        """What one cell must reach: the command line's limits, and the gate file's over them.

        Raises `UsageError` where a limit can never be held against this run.
        """
        from iqa_checks.gate import Gate
        from iqa_checks.gate_file import limits_for

        asked = {
            "model": self.model,
            "stimuli": cell.stimuli.name,
            "scenario": cell.scenario,
            "protocol": cell.protocol,
            "strategy": cell.strategy,
        }
        limits: dict[str, Any] = {
            "min_srcc": self.min_srcc,
            "min_plcc": self.min_plcc,
            "max_unparsed": self.max_unparsed,
        }
        limits |= limits_for(self.gate_lines(), asked)
        if limits.get("min_retest") is not None and cell.repeats < 2:
            raise UsageError(
                f"{cell.id}: min_retest compares answers to the same question, and every trial is "
                "asked once; add --iqa-repeats 3, or take that gate out"
            )
        if limits.get("max_cost_usd") is not None:
            limits["price_per_million"] = self._known_price()
        like = limits.pop("like_paper", False)
        if like:
            limits |= self._from_paper(cell, like)
        return Gate(**limits, strict=self.strict, alpha=self.alpha, n_cells=n_cells)

    def _known_price(self) -> tuple[float, float]:
        """Prompt and reply price; `UsageError` where it is unknown, which is not 0."""
        from iqa_checks.models import SIMULATED

        spec = self.spec
        if spec.price_per_million is None and spec.provider in SIMULATED:
            return 0.0, 0.0
        if spec.price_per_million is None:
            raise UsageError(
                f"max_cost_usd: the price of {self.model} is unknown; give it in US dollars for a "
                "million prompt and reply tokens, as in --iqa-price 2.5:10 (0:0 for your own)"
            )
        prompt, reply = spec.price_per_million
        return float(prompt), float(reply)

    def _paper_model(self, like: str | bool, preset: Preset) -> str:
        """The model of the paper that ``like_paper`` means."""
        from iqa_checks.paper import check_paper_model

        model = self.model if isinstance(like, bool) else like
        check_paper_model(model)
        if preset != "paper":
            raise UsageError(
                "like_paper: the paper's SRCC comes from its own procedure (after a logistic fit "
                "of free sign), and no other figure can be held against it; add --iqa-preset paper"
            )
        return model

    def _from_paper(self, cell: Cell, like: str | bool) -> dict[str, Any]:
        """The figure that a cell is held against, and what must be known about it."""
        from iqa_checks.paper import RETIRED, paper_figure

        model = self._paper_model(like, cell.preset)
        figure = paper_figure(model, cell.stimuli.name, cell.protocol, cell.strategy)
        if figure is None or cell.selection == "difficult":
            where = (
                f"{'difficult samples of ' * (cell.selection == 'difficult')}{cell.stimuli.name}"
            )
            system = f"{cell.protocol} {cell.strategy}"
            missing = f"not held against the paper: no figure of {model}, {system}, on {where}."
            return {"remarks": (missing,)}
        retired = RETIRED.get(model)
        other = f"the paper's {model} was {retired}; {self.spec.model} is another model."
        return {"paper": figure, "remarks": (other,) if retired else ()}

    def check_gates(self) -> None:
        """`UsageError` for a gate file with a mistake, or a gate that this model cannot have."""
        for line in self.gate_lines():
            if not fnmatchcase(self.model, line.selectors.get("model", "*")):
                continue
            if "max_cost_usd" in line.limits:
                self._known_price()
            like = line.limits.get("like_paper")
            if isinstance(like, str) or like is True:
                self._paper_model(like, self.preset)

    def gate_lines(self) -> tuple[GateLine, ...]:
        """The lines of ``--iqa-gates``, checked against the names that exist."""
        if self.gates is None:
            return ()
        from iqa_checks.datasets import names_for
        from iqa_checks.gate_file import read_gates
        from iqa_checks.prompts import SCENARIOS, load_strategies
        from iqa_checks.protocols import PROTOCOLS

        sets = sorted({name for s in SCENARIOS for name in names_for(s, self.source)})
        known = {
            "stimuli": sets,
            "scenario": SCENARIOS,
            "protocol": PROTOCOLS,
            "strategy": list(load_strategies(self.strategies)),
        }
        return read_gates(self.gates, known)

    def open_asker(self) -> LocalAsker:
        """Start the broker of this run; nothing is sent yet."""
        from iqa_checks.broker import open_asker

        return open_asker(
            self.model,
            store=self.store,
            access=self.access,
            identity=self.identity,
            fresh=self.fresh,
            policy=self.policy,
            concurrency=self.concurrency,
            budget=self.budget,
        )


def check(settings: Settings) -> None:
    """Find a user's mistakes before anything is collected; `UsageError` or `StimulusError`."""
    from iqa_checks.models import SIMULATED, check_engine, find_model
    from iqa_checks.prompts import load_strategies

    spec = find_model(settings.model)
    if spec.provider in SIMULATED:
        from iqa_checks.models.observer import make_observer

        make_observer(spec)
    check_engine(spec, settings.access)
    if settings.scaling != "thurstone_map":
        from iqa_checks.scaling import SCALINGS

        if settings.scaling not in SCALINGS:
            raise known_names("scaling method", settings.scaling, SCALINGS)
    if settings.out is not None and settings.out.exists() and not settings.out.is_dir():
        raise UsageError(f"--iqa-out {settings.out} is a file; name a folder")
    if settings.soft and settings.preset == "paper":
        raise UsageError(
            "--iqa-soft and --iqa-preset paper: the published procedure knows no soft answers; "
            "leave one out"
        )
    load_strategies(settings.strategies)
    settings.check_gates()
    from iqa_checks.datasets import check_source

    check_source(settings.source)
    if settings.source.ratings is not None:
        _check_ratings(settings.source)
    if settings.source.photos is not None:
        from iqa_checks.builtin.photographs import from_folder

        if settings.source.ratings is not None:
            raise UsageError("--iqa-photos and --iqa-ratings: give one; each makes its own sets")
        from_folder(settings.source.photos, settings.source.seed)
    _check_numbers(settings)
    if settings.difficult is not None:
        _check_difficult(settings, settings.difficult)
    if settings.compare is not None:
        from iqa_checks.release import baseline_of

        baseline_of(settings)


def _check_ratings(source: StimulusSource) -> None:
    """Read the table of ratings, and look at its images before a paid model is asked."""
    from iqa_checks.layouts import RatingTable, read_ratings
    from iqa_checks.layouts.images import check_presentation
    from iqa_checks.stimuli import verify

    assert source.ratings is not None
    table = RatingTable(source.ratings, source.columns, source.scale, source.polarity)
    rows, _, _, _ = read_ratings(table)
    if len(rows) <= MOST_IMAGES_CHECKED:  # of a large table only what is selected is opened
        check_presentation(verify(rows, name=str(source.ratings)))


def _check_difficult(settings: Settings, how: Difficult) -> None:
    """What is named for difficult samples exists, and is at hand: nothing is put in its place."""
    if not 0 <= how.lam < math.inf:
        raise UsageError(f"--iqa-lambda {how.lam:g}: expected a number of 0 or more")
    if how.preset == "paper" and how.div not in (None, "cosine_to_mean"):
        raise UsageError(
            f"--iqa-div {how.div}: --iqa-preset paper is cosine_to_mean, as the released code; "
            "leave one of the two out"
        )
    if how.ray_address is not None and find_spec("ray") is None:
        raise MissingExtra("ray", "ray", f"--iqa-ray {how.ray_address}")
    if settings.best is not None:
        from iqa_checks.best_system import best_system

        best_system(settings)
    if how.experts or how.embedder or settings.rivals:
        from iqa_checks.rivals import check_named

        check_named((*how.experts, *settings.rivals), how.embedder, how.weights)


def _check_numbers(settings: Settings) -> None:
    """Every number lies where it makes sense; one that does not is named with its range."""
    source = settings.source
    ranges: tuple[tuple[str, float | None, float, float, str], ...] = (
        ("min_srcc", settings.min_srcc, -1, 1, "a correlation between -1 and 1"),
        ("min_plcc", settings.min_plcc, -1, 1, "a correlation between -1 and 1"),
        ("alpha", settings.alpha, 0, 1, "a rate between 0 and 1"),
        ("margin", settings.margin, 0, 1, "a drop of SRCC between 0 and 1"),
        ("timeout", settings.timeout_s, 0, math.inf, "seconds above 0"),
        ("engine_timeout", settings.engine_timeout_s, 0, math.inf, "seconds above 0"),
    )
    for name, value, low, high, expected in ranges:
        if value is not None and not low < value < high:
            raise UsageError(f"{_option(name)} {value:g}: expected {expected}")
    if settings.price is not None and not all(0 <= p < math.inf for p in settings.price):
        raise UsageError("--iqa-price: expected prices of 0 or more")
    if not 0 <= settings.max_unparsed <= 1:
        raise UsageError(f"--iqa-max-unparsed {settings.max_unparsed:g}: expected a share in 0..1")
    least: tuple[tuple[str, int | None, int], ...] = (
        ("--seed", settings.seed, 0),
        ("--iqa-repeats", settings.repeats, 1),
        ("--iqa-concurrency", settings.concurrency, 1),
        ("--iqa-budget", settings.budget, 0),
        ("--iqa-limit", source.limit, 4),
    )
    for option, count, fewest in least:
        if count is not None and count < fewest:
            raise UsageError(f"{option} {count}: expected at least {fewest}")


def _option(name: str) -> str:
    return f"--iqa-{name.replace('_', '-')}"


def read_price(text: str) -> tuple[float, float]:
    """Read ``--iqa-price PROMPT:REPLY``."""
    try:
        prompt, reply = map(float, text.split(":"))
    except ValueError:
        raise UsageError(
            f"--iqa-price {text}: expected PROMPT:REPLY, US dollars for a million tokens of each, "
            "as in 2.5:10"
        ) from None
    return prompt, reply
