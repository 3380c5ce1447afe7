"""LIVE release 2 as it is published: MATLAB files beside five folders of numbered images.

``dmos_realigned.mat`` holds dmos_new, dmos_std and orgs (1 = an undistorted copy, which was rated
too and is left out), ``refnames_all.mat`` the reference of each image, all 982 in the order of the
readme: jp2k 1..227, jpeg 1..233, wn, gblur and fastfading 1..174. MATLAB 5 files hold no code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import StimulusError

if TYPE_CHECKING:
    from iqa_checks.layouts.published import Entry, Found

COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live_entries(found: Found) -> Iterator[Entry]:
    """The 779 distorted images; ``dmos_std`` is the SD of the realigned estimate."""
    from iqa_checks.layouts.folders import require_inside
    from iqa_checks.layouts.published import Entry
    from iqa_checks.layouts.tables import number

    names = [f"{kind}/img{k}.bmp" for kind, n in COUNTS.items() for k in range(1, n + 1)]
    scores = _matrices(found.table, ("dmos_new", "dmos_std", "orgs"), len(names))
    beside = found.table.with_name("refnames_all.mat")
    require_inside(beside, found.folder)
    references = _matrices(beside, ("refnames_all",), len(names))["refnames_all"]
    for k, name in enumerate(names):
        where = f"{found.table}, image {k + 1}"
        if number(str(scores["orgs"][k]), "orgs", where) == 0:
            yield Entry(
                image=name,
                reference=str(references[k][0]) if len(references[k]) else "",
                mos=number(str(scores["dmos_new"][k]), "score", where),
                opinion_sd=number(str(scores["dmos_std"][k]), "SD", where),
                where=where,
            )


def looks_like_live(path: Path) -> bool:
    """Whether a MATLAB file names LIVE's realigned scores."""
    from scipy.io import whosmat

    try:
        return "dmos_new" in {name for name, _, _ in whosmat(path)}
    except Exception:  # whosmat raises a dozen types on damaged input
        return False


def _matrices(path: Path, names: tuple[str, ...], n: int) -> dict[str, Any]:
    """Variables of ``n`` values each; their sizes are checked before they are unpacked."""
    from scipy.io import loadmat, whosmat

    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        for name in names:
            if math.prod(shapes.get(name, (0,))) != n:
                raise StimulusError(f"{name} holds {shapes.get(name, 'nothing')}, expected {n}")
        content = loadmat(path, variable_names=list(names))
    except Exception as error:  # as above; an absent file too
        raise StimulusError(f"{path} cannot be read ({error}); get LIVE release 2 again") from None
    return {name: content[name].ravel() for name in names}
