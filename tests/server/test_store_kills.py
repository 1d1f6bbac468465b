"""A server that is killed keeps what it has answered, and nothing by halves.

Some kills are at a call of the operating system, some at a random time; `BLINDAI_STORE_KILLS` says how many of each.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from server.store_life import STEPS, found_in, kept_after, open_store

SCRIPT = Path(__file__).with_name("store_life.py")
KILLS = int(os.environ.get("BLINDAI_STORE_KILLS", "10"))
SEED = 20261125


def live(folder: Path, at: int | None = None, after_s: float | None = None) -> tuple[int, list[str]]:
    """A life in a process of its own: how it ended, and what it told."""
    command = [sys.executable, str(SCRIPT), str(folder), *([] if at is None else [str(at)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = [process.stdout.readline()]
        if after_s is not None:
            try:
                process.wait(after_s)
            except subprocess.TimeoutExpired:
                process.kill()
        told += process.stdout.read().splitlines()
    return process.returncode, told


def phase_hit(told: list[str], folder: Path) -> str:
    """What was interrupted, and that all that was answered is there, whole, and nothing by halves."""
    answered = sum(line.startswith("done") for line in told)
    begun = sum(line.startswith("begun") for line in told)
    store = open_store(folder)
    found = found_in(store)
    assert found in (kept_after(answered), kept_after(begun)), (told, found)
    named = sum(len(model.manifest.files) for model in store.models())
    store.close()
    assert len(list((folder / "files").iterdir())) == named
    assert not (folder / "index.new").exists()
    return STEPS[answered][0] if begun > answered else "between steps" if answered else "opening"


def test_a_kill_at_any_call_leaves_what_was_answered(tmp_path: Path) -> None:
    ended, told = live(tmp_path / "whole")
    assert ended == 0
    calls = int(told[-1].split()[1])
    store = open_store(tmp_path / "whole")
    assert found_in(store) == kept_after(len(STEPS))
    store.close()
    chosen = sorted(random.Random(SEED).sample(range(calls), min(KILLS, calls)))  # noqa: S311  # to be repeated
    hit: collections.Counter[str] = collections.Counter()
    for at in chosen:
        folder = tmp_path / str(at)
        ended, told = live(folder, at=at)
        assert ended == -signal.SIGKILL
        hit[phase_hit(told, folder)] += 1
    print(f"{len(chosen)} of {calls} calls killed: {dict(hit)}")


def test_a_kill_at_any_time_leaves_what_was_answered(tmp_path: Path) -> None:
    hit: collections.Counter[str] = collections.Counter()
    drawn = random.Random(SEED)  # noqa: S311  # likewise
    for number in range(KILLS):
        folder = tmp_path / str(number)
        ended, told = live(folder, after_s=drawn.uniform(0.001, 0.15))
        hit["after the end" if ended == 0 else phase_hit(told, folder)] += 1
    print(f"{KILLS} kills at random times: {dict(hit)}")


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
