"""Lives of a store (store_life.py) that are killed, and what must be there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.store_life import PHASES, STEPS, found_in, kept_after, open_store

if TYPE_CHECKING:
    from server.store_life import Device
    from tpm.software_tpm import SoftwareTpm

SCRIPT = Path(__file__).with_name("store_life.py")
SEED = 20261125


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One that has ended: what it told, whether it was killed, and how long it took once it opened the store."""

    told: tuple[str, ...]
    was_killed: bool
    took_s: float

    @property
    def phase(self) -> str:
        """In which it ended, of those that are told from outside: an upload's own end shows only at a killed call."""
        if self.told[-1].startswith("killed in "):
            return self.told[-1].removeprefix("killed in ")
        done, begun = self.count("done"), self.count("begun")
        return STEPS[done][0].replace("replace", "upload") if begun > done else "between" if done else "opening"

    def count(self, word: str) -> int:
        """Lines that begin with a word."""
        return sum(line.startswith(word) for line in self.told)


def live(folder: Path, *, at: int | None = None, after_s: float | None = None, tpm: SoftwareTpm | None = None) -> Life:
    """A life in a process of its own, killed at a call, or so many seconds after it began; or not at all."""
    if tpm is not None:
        tpm.release()
    command = [sys.executable, str(SCRIPT), str(folder)]
    command += [] if at is None else [f"--at={at}"]
    command += [] if tpm is None else [f"--tpm={tpm.path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = [process.stdout.readline().rstrip()]
        begun_s = time.monotonic()
        if after_s is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            process.kill()  # one that has ended by itself is not waited for twice, and so keeps its own status
        told += process.stdout.read().splitlines()
        process.wait()
        took_s = time.monotonic() - begun_s
    assert process.returncode in (0, -signal.SIGKILL), told
    if tpm is not None:  # a kernel flushes what a killed process has left in a TPM; swtpm behind a socket does not
        tpm.stop()
        tpm.start()
    return Life(told=tuple(told), was_killed=process.returncode != 0, took_s=took_s)


def require_whole(life: Life, folder: Path, tpm: Device | None = None) -> None:
    """What was answered is there, what was not is absent, and nothing is there by halves.

    A change that was interrupted is there only if its index had already got its name. Where the key lies in a file, a
    change has one such moment, and at a killed call it is known whether that had passed.
    """
    answered, begun = life.count("done"), life.count("begun")
    store = open_store(folder, tpm)
    found, models = found_in(store), store.models()
    store.close()
    may_be = [kept_after(answered), kept_after(begun)]
    last = max((at for at, line in enumerate(life.told) if line.startswith("begun")), default=0)
    if tpm is None and begun > answered and life.phase != "rotate":
        if "renamed" in life.told[last:]:
            may_be = [kept_after(begun)]
        elif life.told[-1].startswith("killed in"):
            may_be = [kept_after(answered)]
    assert found in may_be, (life.told, found)
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.endswith((".new", ".next"))], names
    assert len(list((folder / "files").iterdir())) == sum(len(model.manifest.files) for model in models)


def kill_at_calls(folder: Path, kills: int, tpm: SoftwareTpm | None = None) -> Counter[str]:
    """At drawn calls, by turns in each phase; how many hit which.

    Args:
        folder: for a store for each life.
        kills: how many.
        tpm: what seals, if it is one.
    """
    whole = live(folder / "whole", tpm=tpm)
    assert not whole.was_killed
    calls = whole.told[-1].split()[1:]
    require_whole(whole, folder / "whole", tpm)
    drawn = random.Random(SEED)  # noqa: S311  # to be repeated
    by_phase = {phase: [at for at, of in enumerate(calls) if of == phase] for phase in sorted(set(calls))}
    for each in by_phase.values():
        drawn.shuffle(each)
    turns = [at for turn in itertools.zip_longest(*(by_phase[phase] for phase in _turns(by_phase))) for at in turn]
    chosen = [at for at in turns if at is not None][:kills]
    hit: Counter[str] = Counter()
    for at in chosen:
        life = live(folder / str(at), at=at, tpm=tpm)
        assert life.was_killed
        assert life.phase.replace(" ", "-") == calls[at]
        require_whole(life, folder / str(at), tpm)
        hit[life.phase] += 1
    print(f"killed at {len(chosen)} of {len(calls)} calls, by phase: {dict(hit)}")
    return hit


def _turns(by_phase: dict[str, list[int]]) -> list[str]:
    """The four that matter first."""
    return [*PHASES, *(phase for phase in by_phase if phase not in PHASES)]


def kill_at_random_times(folder: Path, kills: int, tpm: SoftwareTpm | None = None) -> Counter[str]:
    """Until so many lives were killed; one that ended by itself before is none of them."""
    span_s = live(folder / "whole", tpm=tpm).took_s
    drawn = random.Random(SEED)  # noqa: S311  # likewise
    hit: Counter[str] = Counter()
    ended = 0
    for number in itertools.count():
        if hit.total() == kills:
            break
        life = live(folder / str(number), after_s=drawn.uniform(0, span_s), tpm=tpm)
        require_whole(life, folder / str(number), tpm)
        if life.was_killed:
            hit[life.phase] += 1
        else:
            ended += 1
        assert ended < kills + 10, "lives end before they are killed"
    print(f"killed at {kills} random times within {span_s:.3f} s, by phase: {dict(hit)}; {ended} ended by themselves")
    return hit
