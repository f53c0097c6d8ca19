"""Shared by all tests: what was traced, and a run that may not skip, as in continuous integration."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from support.otlp import Telemetry, telemetry

# No test asserts a time, and a machine that others use is slow at any moment.
settings.register_profile("unsticky", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unsticky")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("UNSTICKY_FORBID_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and UNSTICKY_FORBID_SKIPS is set: {report.longrepr}"
    return report


@pytest.fixture
def otlp() -> Generator[Telemetry]:
    """A real OTLP receiver, and an SDK that exports to it."""
    with telemetry() as found:
        yield found
