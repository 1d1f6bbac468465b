"""A server that is killed keeps what it has answered, and nothing by halves.

Half of the kills are at calls of the operating system, half at random times; `BLINDAI_STORE_KILLS` says how many.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from server.killed_lives import kill_at_calls, kill_at_random_times, live
from server.store_life import PHASES, open_store

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("BLINDAI_STORE_KILLS", "20"))


def test_a_kill_at_any_call_leaves_what_was_answered(tmp_path: Path) -> None:
    hit = kill_at_calls(tmp_path, KILLS - KILLS // 2)
    assert hit.keys() >= set(PHASES)


def test_a_kill_at_any_time_leaves_what_was_answered(tmp_path: Path) -> None:
    assert kill_at_random_times(tmp_path, KILLS // 2).total() == KILLS // 2


def test_a_store_that_was_killed_again_and_again_goes_on(tmp_path: Path) -> None:
    """The steps begin anew each time, so what an earlier life left may be there already."""
    for at in (7, 30, 55):
        live(tmp_path, at=at)
        open_store(tmp_path).close()
    store = open_store(tmp_path)
    for model in store.models():
        store.delete(model.name, model.version)
    assert not list((tmp_path / "files").iterdir())
    store.close()
