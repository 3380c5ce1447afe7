"""Every error this project raises on purpose.

    IqaChecksError
    ├── UsageError            an option, name or value that the user can correct
    │   ├── MissingExtra      an optional package is not installed
    │   └── TooManyImages     a prompt shows more than the model takes: the cell skips and says so
    ├── StimulusError         an image, a table of ratings or a data set is not usable
    │   └── StimuliAbsent     a data set is not at hand: the cell skips and says what to get
    ├── DesignError           too few stimuli for a protocol
    │   └── ExemplarsAbsent   too few stimuli to hold out exemplars: the cell skips and says so
    ├── InfrastructureError   something between us and the model failed: never a data point
    │   ├── EndpointError     the endpoint refuses or cannot be reached: it ends the run
    │   ├── RequestFailed     one request failed after all its retries
    │   ├── ReplyMissing      a replay was asked for and the store lacks this reply
    │   └── BudgetSpent       the run's limit of calls is reached
    └── StoreError            the reply store cannot be read or written

Each message says what was expected, what was found and what to do; it is all that the user sees.
"""

from __future__ import annotations


class IqaChecksError(Exception):
    """Base of all of them."""


class UsageError(IqaChecksError):
    """An option, a name or a value that the user can correct."""


class MissingExtra(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}: pip install 'iqa_checks[{extra}]'"
        )


class TooManyImages(UsageError):
    """A prompt shows more images than the model takes; the message says how many it takes."""


class StimulusError(IqaChecksError):
    """An image, a table of ratings or a data set is not usable."""


class StimuliAbsent(StimulusError):
    """A data set is not at hand; the message says how to get it."""


class DesignError(IqaChecksError):
    """Too few stimuli for a protocol."""


class ExemplarsAbsent(DesignError):
    """Too few stimuli to hold out exemplars; the message says how many it takes."""


class InfrastructureError(IqaChecksError):
    """Something between us and the model failed: an error, never a data point."""


class EndpointError(InfrastructureError):
    """The endpoint refuses or cannot be reached; the whole run ends."""


class RequestFailed(InfrastructureError):
    """One request failed after all its retries."""


class ReplyMissing(InfrastructureError):
    """A replay was asked for and the store has no reply to this request."""


class BudgetSpent(InfrastructureError):
    """The run's limit of calls is reached."""


class StoreError(IqaChecksError):
    """The reply store cannot be read or written."""


def known_names(what: str, name: str, known: object) -> UsageError:
    """The error for a lookup that failed: names what is known and the nearest of it."""
    import difflib

    names = sorted(str(item) for item in known)  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {what} {name!r}.{hint} Known: {', '.join(names)}")
