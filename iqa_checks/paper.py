"""The paper's figures as gates: is a measured SRCC significantly below the published one?

Figures are those of Table 1 of Wu et al. 2024 (``data/paper_tables.yaml``): uniformly sampled
stimuli, the paper's own statistic (preset `paper`). A published figure has a sampling error too:
150 stimuli, or 15 references of 10. Both errors enter the test, which takes the two samples as
independent; where they share stimuli it is cautious.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import UsageError

if TYPE_CHECKING:
    from iqa_checks.agreement import Correlation

RETIRED = {"gpt4v": "gpt-4-vision-preview"}  # nobody can ask it any more
N_STIMULI = 150
N_REFERENCES = 15  # of an FR set, ten stimuli each


@cache
def paper_tables() -> dict[str, Any]:
    """The paper's result tables, as transcribed."""
    import yaml

    source = resources.files("iqa_checks").joinpath("data/paper_tables.yaml")
    tables: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return tables


def paper_models() -> list[str]:
    """The models of Table 1."""
    return list(dict.fromkeys(row["model"] for row in paper_tables()["table1"]["rows"]))


def check_paper_model(model: str) -> None:
    """`UsageError` for a model that the paper did not ask."""
    known = paper_models()
    if model not in known:
        raise UsageError(
            f"like_paper: the paper has no figures of {model}; name the model that yours should "
            f"be like, as in like_paper: {known[0]} (known: {', '.join(known)})"
        )


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """A published SRCC of ``model``, over 150 stimuli (FR: the mean over 15 references)."""

    model: str
    srcc: float

    def __str__(self) -> str:
        return f"the paper's {self.srcc:.3f} of {self.model}"

    def p_below(self, measured: Correlation) -> float | None:
        """One-sided p-value of "the true SRCC measured here is below the one the paper measured".

        Pooled SRCC: on Fisher's z, with the standard error of ``measured`` and Bonett and Wright's
        ``sqrt((1 + r^2 / 2) / (n - 3))`` (2000) of the figure. Mean over references: a two-sample
        t test whose spread over references is that of ``measured``, since the paper gives none;
        the same model has the same spread. Student's t with the degrees of freedom of ``measured``.

        None where ``measured`` has no standard error.
        """
        from scipy.special import ndtr, stdtr

        value, z, error = measured.value, measured.fisher_z, measured.std_error
        if value is None or z is None or error is None:
            return None
        if measured.scale == "identity":
            gap = value - self.srcc
            error *= math.sqrt(1 + (measured.n_clusters or 1) / N_REFERENCES)
        else:
            gap = z - math.atanh(self.srcc)
            error = math.hypot(error, math.sqrt((1 + self.srcc**2 / 2) / (N_STIMULI - 3)))
        below = gap / error
        return float(ndtr(below) if measured.df is None else stdtr(measured.df, below))


def paper_figure(model: str, stimuli: str, protocol: str, strategy: str) -> PaperFigure | None:
    """The figure of a cell of Table 1; None where the paper has none."""
    table = paper_tables()["table1"]
    if stimuli not in table["columns"]:
        return None
    place = table["columns"].index(stimuli)
    asked = (model, protocol, strategy)
    return next(
        (
            PaperFigure(model, float(row["srcc"][place]))
            for row in table["rows"]
            if (row["model"], row["protocol"], row["strategy"]) == asked
        ),
        None,
    )
