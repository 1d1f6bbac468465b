"""How long each TEE's evidence takes: one genuine sample of each, where there are samples, and the fake vendors' items.

Leaves out: fetching endorsements, which takes as long as the network does; what is printed of it (bench/appraisal.py).
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attestation.samples import EVIDENCE
from fakes.machines import machines, strict_policy_of

from blindai.attestation.checks import Checks
from blindai.attestation.tee import TEES, simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.attestation.evidence import EvidenceItem

BAR_MS = 3.0
RIMS_BAR_MS = 20.0
_READERS = ("read", "parse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Medians of one item, in milliseconds of CPU.

    Attributes:
        parse_ms: reading the evidence alone.
        first_ms: reading everything, and following every signature, with nothing kept of earlier appraisals.
        verify_ms: the same when the vendor's papers were seen before, as by all appraisals but the first.
        check_ms: comparing with the preset `strict`.
        bar_ms: what both together may take.
    """

    name: str
    parse_ms: float
    first_ms: float
    verify_ms: float
    check_ms: float
    bar_ms: float

    @property
    def total_ms(self) -> float:
        """What a client computes."""
        return self.verify_ms + self.check_ms


def timings(runs: int) -> Iterator[Timing]:
    """Each item, timed."""
    for name, item, now, verify in _items():
        claims = verify(item, now, Checks())
        check, policy = TEES[item.tee].check, strict_policy_of(item.tee)
        yield Timing(
            name=name,
            parse_ms=median_ms(functools.partial(_parser(item.tee), item.evidence), runs),
            first_ms=median_ms(functools.partial(_verified, verify, item, now), runs, before=forget_everything),
            verify_ms=median_ms(functools.partial(_verified, verify, item, now), runs),
            check_ms=median_ms(functools.partial(_checked, check, claims, policy), runs),
            bar_ms=RIMS_BAR_MS if any(part.endswith("_rim") for part, _ in item.endorsements) else BAR_MS,
        )


def _items() -> Iterator[tuple[str, EvidenceItem, float, Callable[..., Any]]]:
    for tee in sorted(TEES.keys() - {simulation.TEE}) if EVIDENCE.is_dir() else ():
        item, now = importlib.import_module(f"attestation.test_{tee}_samples").one_genuine()
        yield f"{tee}, genuine", item, now, TEES[tee].verify
    for name, machine in sorted(machines().items()):
        yield f"{name}, fake", machine.item, machine.now, machine.verify


def _parser(tee: str) -> Callable[[bytes], Any]:
    """The TEE's own, wherever its module has it from."""
    return getattr(importlib.import_module(f"blindai.attestation.tee.{tee}"), "parse", len)


def _verified(verify: Callable[..., Any], item: EvidenceItem, now: float) -> None:
    verify(item, now, Checks())


def _checked(check: Callable[..., Any], *arguments: object) -> None:
    list(check(*arguments))


def _caches() -> Iterator[tuple[str, Any]]:
    """Each function of `blindai.attestation` that keeps what it found, by its name; once, wherever it is imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith("blindai.attestation")]
    for module in modules:
        for function in vars(module).values():
            if hasattr(function, "cache_clear") and function.__module__ == module.__name__:
                yield f"{module.__name__.removeprefix('blindai.attestation.')}.{function.__name__}", function


def forget_everything() -> None:
    """As if nothing had been appraised before."""
    for _, function in _caches():
        function.cache_clear()


def kept_papers() -> dict[str, int]:
    """How many certificates, lists and documents each function that reads them keeps."""
    sizes = {name: function.cache_info().currsize for name, function in _caches()}
    return {
        name: size for name, size in sizes.items() if size and name.rpartition(".")[2].lstrip("_").startswith(_READERS)
    }


def median_ms(run: Callable[[], object], runs: int, *, before: Callable[[], object] = int) -> float:
    """Of the CPU's time, so that other work on the machine does not count; the first run is thrown away."""
    run()
    took = []
    for _ in range(runs):
        before()
        begin = time.process_time()
        run()
        took.append(time.process_time() - begin)
    return 1000 * statistics.median(took)
