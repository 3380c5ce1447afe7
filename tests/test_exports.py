"""The front door: every exported name is there, documented, and costs nothing until used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import iqa_checks


@pytest.mark.parametrize("name", iqa_checks.__all__)
def test_every_exported_name_is_documented(name: str) -> None:
    """A name without a docstring is not an API; what a dataclass writes of itself is none."""
    text = getattr(iqa_checks, name).__doc__ or ""
    assert text.strip()
    assert not text.startswith(f"{name}(")


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        iqa_checks.nonsense  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    """Neither numpy nor a client library is loaded before a name is used."""
    code = "import iqa_checks, sys; print({'numpy', 'openai', 'yaml', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
