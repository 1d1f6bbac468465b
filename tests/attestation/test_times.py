"""How long verifying takes is shown with every run of the tests; bars are judged on a quiet machine (`make bench`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attestation.times import timings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


def test_median_times_are_shown(tell: Callable[[str], None]) -> None:
    found = list(timings(7))
    assert found
    for one in found:
        over = "" if one.total_ms <= one.bar_ms else f", over the bar of {one.bar_ms:g} ms"
        tell(
            f"{one.name}: median {one.verify_ms:.2f} ms verify ({one.first_ms:.2f} the first time) "
            f"+ {one.check_ms:.2f} ms check{over}"
        )
