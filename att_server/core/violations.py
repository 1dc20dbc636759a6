"""Rules that a value breaks, as a path and words, whoever gave the value.

The path names fields as the contract does, relative to the whole; numbers are
positions. The words go on from the field's name and never hold a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

SettingPath = tuple[str | int, ...]
Violation = tuple[SettingPath, str]

MAX_LIMIT = 1 << 53
"""Bounds numbers without a bound of their own to what every JSON reader keeps."""

TEN_MS = timedelta(milliseconds=10)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
DECADE = timedelta(days=3_650)


def span_rule(field: str, span: timedelta, low: timedelta, high: timedelta) -> Iterator[Violation]:
    """What a span breaks that must be from `low` to `high`."""
    if not low <= span <= high:
        yield (field,), f"must be {span_text(low)} to {span_text(high)}"


def number_rule(field: str, number: float, low: int, high: int) -> Iterator[Violation]:
    """What a number breaks that must be from `low` to `high`."""
    # Not `number < low or …`, which NaN would pass.
    if not low <= number <= high:
        bounds = f"at least {low:,}" if number < low and high == MAX_LIMIT else ""
        yield (field,), f"must be {bounds or f'{low:,} to {high:,}'}"


def field_rule(field: str, rule: str) -> Iterator[Violation]:
    """The violation of `rule`; none if that is empty."""
    if rule:
        yield (field,), rule


def under(field: str, found: Iterable[Violation]) -> Iterator[Violation]:
    """What was found in the value of a field, as paths from the field's own parent."""
    return (((field, *path), rule) for path, rule in found)


def span_text(span: timedelta) -> str:
    """A span in the form that `att.toml` takes, in the largest unit that gives a whole number."""
    for unit, length in (("d", DAY), ("h", HOUR), ("m", timedelta(minutes=1)), ("s", SECOND)):
        if span and not span % length:
            return f"{span // length}{unit}"
    return f"{span / timedelta(milliseconds=1):g}ms" if span else "0s"
