"""What a check of `att doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding; `advice` says what to do, and is empty where all is well."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def check(name: str, good: bool, detail: str, advice: str, bad: Verdict = Verdict.FAIL) -> Check:
    """The finding: `bad`, with the advice, where it is not good."""
    verdict = Verdict.OK if good else bad
    return Check(name=name, verdict=verdict, detail=detail, advice="" if good else advice)
