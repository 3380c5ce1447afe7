"""Optional packages, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from iqa_checks.errors import MissingExtra


def require(module: str, purpose: str, *, extra: str = "experts") -> Any:
    """The module; `MissingExtra` that says what to install where its package is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        raise MissingExtra(package, extra, purpose) from None
