"""Expert metrics: quality models that are no multimodal LLM, as rivals and as proxies.

`EXPERTS` lists them, `score_stimuli` applies one, oriented so that higher = better, and `fuse`
joins several on the scale of the human scores, as Eqs. 3-5 need them.
"""

from __future__ import annotations

from iqa_checks.experts.fusion import OFFLINE_EXPERTS, PAPER_EXPERTS, default_experts, fuse
from iqa_checks.experts.registry import EXPERTS, Expert, expert_table, find_expert
from iqa_checks.experts.scoring import how_computed, score_stimuli

__all__ = [
    "EXPERTS",
    "OFFLINE_EXPERTS",
    "PAPER_EXPERTS",
    "Expert",
    "default_experts",
    "expert_table",
    "find_expert",
    "fuse",
    "how_computed",
    "score_stimuli",
]
