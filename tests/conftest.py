"""For the whole suite: in CI a skipped test is a failure, and what tests counted is shown at the end.

Leaves out: other fixtures, which stand beside the tests that use them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# Test ids that may be skipped in CI, each with its reason beside it.
ALLOWED_SKIPS: frozenset[str] = frozenset()

# How long one example takes says more about the other core than about the code.
settings.register_profile("blindai", deadline=None)
settings.load_profile("blindai")


TOLD = "told"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes the files of tests/golden instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/*.txt anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare text with a committed file, or write it there."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, "utf-8")
        assert path.read_text("utf-8") == text, f"{path.name}: see the diff of `pytest tests/golden --update-golden`"

    return compare


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say a number that people should see; it reaches the end of the run's output from xdist's workers too."""
    return lambda text: record_property(TOLD, text)


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
    """Show what tests counted, and name what was skipped, before pytest's closing line."""
    told = [
        f"{report.nodeid.partition('::')[2]}: {text}"
        for report in terminalreporter.stats.get("passed", ())
        for name, text in report.user_properties
        if name == TOLD and report.when == "call"
    ]
    if told:
        terminalreporter.section("counted")
        for line in sorted(told):
            terminalreporter.line(line)
    if skipped := _skipped_against_the_rules(config):
        terminalreporter.section("skipped in CI, which counts as failed (ALLOWED_SKIPS in tests/conftest.py)", red=True)
        for nodeid in skipped:
            terminalreporter.line(f"SKIPPED {nodeid}", red=True)
