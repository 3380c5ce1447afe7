"""How well do multimodal LLMs see image quality? The Python API, usable without pytest.

    from iqa_checks import Cell, load_dataset, run_cell

    result = run_cell(Cell(load_dataset("builtin-nr"), "nr", "double"), "observer:noise=5")
    result.srcc.value, result.srcc.low, result.srcc.high

Names are imported on first use: ``import iqa_checks`` loads neither numpy nor a client library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_checks.agreement import Correlation as Correlation
    from iqa_checks.agreement import krcc as krcc
    from iqa_checks.agreement import plcc as plcc
    from iqa_checks.agreement import rmse as rmse
    from iqa_checks.agreement import srcc as srcc
    from iqa_checks.broker import open_asker as open_asker
    from iqa_checks.cell import Cell as Cell
    from iqa_checks.cell import CellResult as CellResult
    from iqa_checks.cell import run_cell as run_cell
    from iqa_checks.comparison import compare_plcc as compare_plcc
    from iqa_checks.comparison import compare_srcc as compare_srcc
    from iqa_checks.datasets import load_dataset as load_dataset
    from iqa_checks.difficult import select_difficult as select_difficult
    from iqa_checks.difficult import (
        select_difficult_by_reference as select_difficult_by_reference,
    )
    from iqa_checks.errors import IqaChecksError as IqaChecksError
    from iqa_checks.gate import Gate as Gate
    from iqa_checks.gate import Verdict as Verdict
    from iqa_checks.gate import judge as judge
    from iqa_checks.gmad import select_gmad as select_gmad
    from iqa_checks.layouts import RatingTable as RatingTable
    from iqa_checks.layouts import load_ratings as load_ratings
    from iqa_checks.parsing import parse_reply as parse_reply
    from iqa_checks.protocols import Preference as Preference
    from iqa_checks.protocols import Ranking as Ranking
    from iqa_checks.protocols import Rating as Rating
    from iqa_checks.protocols import Unparsed as Unparsed
    from iqa_checks.scaling import Comparisons as Comparisons
    from iqa_checks.scaling import pairs_from_ranking as pairs_from_ranking
    from iqa_checks.scaling import preference_matrix as preference_matrix
    from iqa_checks.scaling import thurstone_map as thurstone_map
    from iqa_checks.stimuli import Stimulus as Stimulus
    from iqa_checks.stimuli import StimulusSet as StimulusSet

_HOMES = {
    "agreement": ("Correlation", "krcc", "plcc", "rmse", "srcc"),
    "broker": ("open_asker",),
    "cell": ("Cell", "CellResult", "run_cell"),
    "comparison": ("compare_plcc", "compare_srcc"),
    "datasets": ("load_dataset",),
    "difficult": ("select_difficult", "select_difficult_by_reference"),
    "errors": ("IqaChecksError",),
    "gate": ("Gate", "Verdict", "judge"),
    "gmad": ("select_gmad",),
    "layouts": ("RatingTable", "load_ratings"),
    "parsing": ("parse_reply",),
    "protocols": ("Preference", "Ranking", "Rating", "Unparsed"),
    "scaling": ("Comparisons", "pairs_from_ranking", "preference_matrix", "thurstone_map"),
    "stimuli": ("Stimulus", "StimulusSet"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'iqa_checks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"iqa_checks.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
