"""What a service's own error code means, where the HTTP status alone says too little."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing was done and nothing will be for a while: nobody calls for `seconds`."""

    seconds: float
    reason: str
    or_too_much: bool = False
    """The service says the same to a call that asks for too much at once: one that is divisible is refused instead."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was done, and the next call like it would be declined as well; the credentials are not at fault."""

    reason: str
