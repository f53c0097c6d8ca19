"""For the tests of applications, of stores, and of unsticky itself. Needs no test framework."""

from __future__ import annotations

from .clock import FakeClock
from .contract import Check, store_contract

__all__ = ["Check", "FakeClock", "store_contract"]
