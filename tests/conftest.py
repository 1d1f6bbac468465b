"""For the whole suite: in CI a skipped test is a failure, since nobody reads why it was skipped.

Leaves out: fixtures, which stand beside the tests that use them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

# Test ids that may be skipped in CI, each with its reason beside it.
ALLOWED_SKIPS: frozenset[str] = frozenset()

# How long one example takes says more about the other core than about the code.
settings.register_profile("blindai", deadline=None)
settings.load_profile("blindai")


def forbidden_skips(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """The ids among skipped reports that no allowance names, in order and each once."""
    return sorted({report.nodeid for report in reports} - ALLOWED_SKIPS)


def _skipped_against_the_rules(config: pytest.Config) -> list[str]:
    """Whole modules (`importorskip`) count too; with xdist only the controller judges, since it has every report."""
    if os.environ.get("CI") != "true" or hasattr(config, "workerinput"):
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return forbidden_skips(reporter.stats.get("skipped", ())) if reporter is not None else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that would have passed fails if it skipped something."""
    if session.exitstatus == pytest.ExitCode.OK and _skipped_against_the_rules(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was skipped, before pytest's closing line."""
    if skipped := _skipped_against_the_rules(config):
        terminalreporter.section("skipped in CI, which counts as failed (ALLOWED_SKIPS in tests/conftest.py)", red=True)
        for nodeid in skipped:
            terminalreporter.line(f"SKIPPED {nodeid}", red=True)
