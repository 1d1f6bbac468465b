"""Every fuzz target takes its seeds, and refuses or takes whatever is a little wrong, and nothing else comes out.

This is what runs everywhere; `make test-fuzz` and `make audit` follow coverage with atheris, for longer.
"""

from __future__ import annotations

import re
import time
import zlib

import pytest
from fuzz.mutations import mutations
from fuzz.target import accepts, join_parts, split_parts
from fuzz.targets import TARGETS

# A vendor's strange certificates are warned about (cryptography does), and no finding.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

MUTATIONS = 60
SECONDS = 0.5  # a slow target has fewer


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_a_refusal_comes_out_of_a_parser(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    accepted = sum(accepts(target, seed) for seed in seeds)
    assert accepted, "no seed is accepted, so nothing behind the first check is fuzzed"
    end = time.monotonic() + SECONDS
    for data in (b"", b"\0", b"{" * 5000, b"[" * 5000, *mutations(seeds, MUTATIONS, seed=zlib.crc32(name.encode()))):
        accepts(target, data)
        if time.monotonic() > end:
            break


def test_parts_are_cut_where_they_were_joined() -> None:
    parts = [b"", b"a", b"\0", b"bc"]
    assert split_parts(join_parts(*parts), 4) == parts
    assert split_parts(join_parts(*parts), 6) == [*parts, b"", b""]
    assert split_parts(join_parts(*parts), 2) == [b"", join_parts(*parts[1:])]


def test_mutations_are_the_same_for_the_same_seed() -> None:
    one, same, other = (list(mutations([b"abc" * 9, b"{}"], 50, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert len(set(one)) > 25


def test_names_are_names_of_files() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) for name in TARGETS)
