"""LIVE release 2 as it is published: MATLAB files beside five folders of numbered images.

``dmos_realigned.mat`` holds dmos_new, dmos_std and orgs (1 = an undistorted copy, which was rated
too and is left out), ``refnames_all.mat`` the reference of each image, all 982 in the order of the
readme: jp2k 1..227, jpeg 1..233, wn, gblur and fastfading 1..174. MATLAB 5 files hold no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import StimulusError

if TYPE_CHECKING:
    from iqa_checks.layouts.published import Entry, Found

COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live_entries(found: Found) -> Iterator[Entry]:
    """The 779 distorted images; ``dmos_std`` is the SD of the realigned estimate."""
    from iqa_checks.layouts.published import Entry

    names = [f"{kind}/img{k}.bmp" for kind, n in COUNTS.items() for k in range(1, n + 1)]
    scores = _matrices(found.table, ("dmos_new", "dmos_std", "orgs"), len(names))
    beside = found.table.with_name("refnames_all.mat")
    references = _matrices(beside, ("refnames_all",), len(names))["refnames_all"]
    for k, name in enumerate(names):
        if not int(scores["orgs"][k]):
            yield Entry(
                image=name,
                reference=str(references[k][0]),
                mos=float(scores["dmos_new"][k]),
                opinion_sd=float(scores["dmos_std"][k]),
                where=f"{found.table}, image {k + 1}",
            )


def looks_like_live(path: Path) -> bool:
    """Whether a MATLAB file names LIVE's realigned scores."""
    from scipy.io import whosmat

    try:
        return "dmos_new" in {name for name, _, _ in whosmat(path)}
    except Exception:  # whosmat raises a dozen types on damaged input
        return False


def _matrices(path: Path, names: tuple[str, ...], n: int) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=list(names))
    except Exception as error:  # as above; an absent file too
        raise StimulusError(f"{path} cannot be read ({error}); get LIVE release 2 again") from None
    for name in names:
        size = content[name].size if name in content else 0
        if size != n:
            raise StimulusError(
                f"{path}: {name} holds {size} values, expected {n}; get LIVE release 2 again"
            )
    return {name: content[name].ravel() for name in names}
