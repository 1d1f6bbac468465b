"""`make bench`: every bar and every table in one run, some 20 minutes; `make bench BENCH=quick` takes two.

    python bench/run.py [full|quick] [PART …]      parts: mlp forest peers table distilbert resnet50 cores crash

The server is kept on one core and the load on another; what is compared runs in turn. Raw numbers go to
`bench/results/DATE.json`, from which `report.py` draws docs/benchmarks.md's plots.
Leaves out: how it is measured (measure.py, load.py) and who is started how (serving.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
import python_peers
import report
from bars import CPU, RATE, Bar, Judged, judge
from machine import machine
from measure import Load, busiest_model, in_turn, median, memory_mib
from serving import ours, proxy, raw, triton_server

import blindai
from blindai.errors import BlindAIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from measure import Sample, Target
    from models import BenchModel

SERVER_CORE, LOAD_CORE = "0", "1"
RESULTS = models.HERE / "results"


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run: its thoroughness, and what was found."""

    quick: bool
    folder: Path
    judged: list[Judged] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Pairs of each comparison."""
        return 3 if self.quick else 5

    def compare(
        self,
        work: str,
        targets: Sequence[Target],
        *,
        connections: int,
        seconds: float,
        bars: Sequence[Bar] = (),
        rounds: int | None = None,
    ) -> None:
        """Measure in turn, tell, and judge."""
        with _loads(targets, self.folder) as loads:
            found = in_turn(loads, connections=connections, seconds=seconds, rounds=rounds or self.rounds)
        self.keep(work, connections, found)
        self.judged += [judge(bar, found) for bar in bars]

    def keep(self, work: str, connections: int, found: dict[str, list[Sample]]) -> None:
        """Keep the samples, and print their medians."""
        for name, samples in found.items():
            self.samples.append(
                {
                    "work": work,
                    "connections": connections,
                    "target": name,
                    "median": asdict(median(samples)),
                    "rounds": [asdict(one) for one in samples],
                }
            )
        report.print_samples(self.samples[-len(found) :])

    def note(self, text: str) -> None:
        """Something that is no ratio."""
        self.notes.append(text)
        print(text, flush=True)


@contextlib.contextmanager
def _loads(targets: Sequence[Target], folder: Path) -> Iterator[list[Load]]:
    loads: list[Load] = []
    try:
        for target in targets:
            cores = SERVER_CORE if target.process_id is None else LOAD_CORE
            loads.append(Load(target, cores=cores, folder=folder))
        yield loads
    finally:
        for load in loads:
            load.close()


def mlp(bench: Bench) -> None:
    """The tiny MLP through every door, beside Triton: front ends, not models, are compared."""
    model = models.tiny_mlp()
    with (
        ours("tenant", [model], cores=SERVER_CORE) as tenant,
        ours("thread", [model], cores=SERVER_CORE, isolation="thread") as thread,
        triton_server("Triton", [(model, True)], cores=SERVER_CORE, cache=models.CACHE) as triton,
        proxy(tenant, model, cores=LOAD_CORE) as proxied,
    ):
        main = [
            triton.http(model),
            tenant.tls(model),
            thread.tls(model),
            tenant.sealed(model, receipts=False),
            tenant.sealed(model, receipts=True),
        ]
        others = [thread.sealed(model, receipts=False), tenant.grpc_door(model), triton.grpc(model), proxied]
        for connections in (8, 32) if bench.quick else (1, 8, 32):
            targets = main if bench.quick else [*main, *others]
            bars = _mlp_bars(connections)
            bench.compare("tiny MLP", targets, connections=connections, seconds=0.4, bars=bars)
        for server in (tenant, thread, triton):
            bench.note(f"memory, {server.name} with the tiny MLP: {memory_mib(server.process_id):.0f} MiB")


def _mlp_bars(connections: int) -> list[Bar]:
    if connections == 1:
        return []
    work = f"tiny MLP, {connections} connections"
    bars = [
        Bar(work=work, ours="tenant TLS", theirs="Triton HTTP", least=1.0, by=CPU),
        Bar(work=work, ours="thread TLS", theirs="Triton HTTP", least=1.2, by=CPU),
    ]
    if connections == 32:
        bars.append(Bar(work=work, ours="tenant sealed", theirs="Triton HTTP", least=0.7, by=CPU))
    return bars


def forest(bench: Bench) -> None:
    """A forest of 100 trees."""
    model = models.forest()
    with (
        ours("tenant", [model], cores=SERVER_CORE) as tenant,
        triton_server("Triton", [(model, True)], cores=SERVER_CORE, cache=models.CACHE) as triton,
    ):
        targets = [triton.http(model), tenant.tls(model), tenant.sealed(model, receipts=True), raw(model, bench.folder)]
        for connections in (1, 8, 32):
            bench.compare("forest", targets, connections=connections, seconds=0.4)


def peers(bench: Bench) -> None:
    """The Python servers, on the tiny MLP."""
    model = models.tiny_mlp()
    with contextlib.ExitStack() as stack:
        tenant = stack.enter_context(ours("tenant", [model], cores=SERVER_CORE))
        targets = [tenant.tls(model)]
        for peer in python_peers.PEERS:
            found = stack.enter_context(python_peers.running(peer, model, cores=SERVER_CORE, cache=models.CACHE))
            if isinstance(found, str):
                bench.note(found)
            else:
                targets.append(found)
        for connections in (1, 8, 32):
            bench.compare("tiny MLP, Python servers", targets, connections=connections, seconds=0.4)


def table(bench: Bench) -> None:
    """Every server at 1, 8 and 32 connections on models that take milliseconds, joined as each does by default."""
    for model in (models.distilbert(8), models.resnet50(), models.distilbert(128), models.forest()):
        if model is None:
            continue
        with contextlib.ExitStack() as stack:
            tenant = stack.enter_context(ours("ours", [model], cores=SERVER_CORE))
            triton = triton_server("Triton", [(model, True)], cores=SERVER_CORE, cache=models.CACHE)
            targets = [stack.enter_context(triton).http(model), tenant.tls(model), tenant.sealed(model, receipts=True)]
            for peer in python_peers.PEERS:
                found = stack.enter_context(python_peers.running(peer, model, cores=SERVER_CORE, cache=models.CACHE))
                if isinstance(found, str):
                    bench.note(f"{model.name}: {found}")
                else:
                    targets.append(found)
            for connections in (1, 8, 32):
                _compare_those_that_answer(bench, f"{model.name}, every server", targets, connections)


def _compare_those_that_answer(bench: Bench, work: str, targets: list[Target], connections: int) -> None:
    """A server that fails under the load leaves the table, and the result says so."""
    while targets:
        try:
            bench.compare(work, targets, connections=connections, seconds=1.0, rounds=2)
        except RuntimeError as error:
            failed = next(target for target in targets if str(error).endswith(f"on {target.name} failed"))
            bench.note(f"{work}, {connections} connections: {failed.name} failed under the load, and is left out")
            targets.remove(failed)
        else:
            return


def distilbert(bench: Bench) -> None:
    """DistilBERT at 8 and 128 tokens, nothing joined: what sealing and signing take of a real model's time."""
    for tokens, least in ((8, 0.92), (128, 0.97)):
        model = models.distilbert(tokens)
        if model is None:
            bench.note("DistilBERT is left out: `make test-seed` makes the environment that exports it")
            return
        _single(bench, model, f"DistilBERT {tokens} tokens", least=least)


def resnet50(bench: Bench) -> None:
    """ResNet-50, 600 KB of input."""
    _single(bench, models.resnet50(), "ResNet-50", least=0.97)


def _single(bench: Bench, model: BenchModel, work: str, *, least: float) -> None:
    """Two in the air, so that the server's core never waits for the client; nothing is joined."""
    with (
        ours("ours", [model], cores=SERVER_CORE, batching=False) as server,
        triton_server("Triton", [(model, False)], cores=SERVER_CORE, cache=models.CACHE) as triton,
    ):
        in_process = raw(model, bench.folder)
        targets = [
            triton.http(model, joined=False),
            server.sealed(model, receipts=True),
            server.tls(model),
            in_process,
        ]
        seconds = _seconds_for(in_process, bench.folder)
        bars = [
            Bar(work=f"{work}, alone", ours="ours sealed, receipts", theirs=in_process.name, least=least, by=RATE),
            Bar(work=f"{work}, alone", ours="ours sealed, receipts", theirs="Triton HTTP", least=1.0, by=RATE),
        ]
        bench.compare(work, targets, connections=2, seconds=seconds, bars=bars)
        bench.note(f"memory, ours with {work} (two processes of it): {memory_mib(server.process_id):.0f} MiB")
        bench.note(f"memory, Triton with {work}: {memory_mib(triton.process_id):.0f} MiB")


def _seconds_for(in_process: Target, folder: Path) -> float:
    """Enough for a dozen runs."""
    with _loads([in_process], folder) as loads:
        loads[0].measure(1, 0.1)
        return min(4.0, max(0.6, 12 * loads[0].measure(1, 0.3).p50_ms / 1000))


def cores(bench: Bench) -> None:
    """DistilBERT at 8 tokens on both cores, 8 and 32 clients of one tenant, against a tuned Triton."""
    model = models.distilbert(8)
    if model is None:
        return
    with (
        ours("ours", [model], cores="") as joined,
        ours("unjoined", [model], cores="", batching=False) as alone,
        triton_server("tuned Triton", [(model, True)], cores="", cache=models.CACHE, threads=2) as triton,
    ):
        targets = [triton.http(model), joined.sealed(model, receipts=True), alone.sealed(model, receipts=True)]
        for connections in (8, 32):
            work = f"DistilBERT 8 tokens, {connections} clients, both cores"
            bars = [
                Bar(work=work, ours="ours sealed, receipts", theirs="tuned Triton HTTP", least=1.0, by=RATE),
                Bar(work=work, ours="ours sealed, receipts", theirs="unjoined sealed, receipts", least=3.0, by=RATE),
            ]
            with contextlib.ExitStack() as stack:
                loads = [Load(target, cores="", folder=bench.folder) for target in targets]
                for load in loads:
                    stack.callback(load.close)
                found = in_turn(loads, connections=connections, seconds=2.0, rounds=bench.rounds)
            bench.keep(work, connections, found)
            bench.judged += [judge(bar, found) for bar in bars]


def crash(bench: Bench) -> None:
    """Kill the model's process under load: how many requests fail, and how long until answers come again."""
    model = models.tiny_mlp()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ours("tenant", [model], cores=SERVER_CORE))
        tally = _Tally()
        client = stack.enter_context(blindai.connect(server.url, insecure_simulation=True))  # one, so one worker
        client.infer(model.name, next(iter(model.inputs.values())))
        threads = [threading.Thread(target=_ask, args=(client, model, tally)) for _ in range(8)]
        for thread in threads:
            thread.start()
        took_s = []
        for _ in range(3):
            time.sleep(2)
            worker = busiest_model(server.process_id)
            killed_s = time.monotonic()
            os.kill(worker, 9)
            while tally.first_after(killed_s) is None and time.monotonic() < killed_s + 20:
                time.sleep(0.005)
            took_s.append((tally.first_after(killed_s) or float("inf")) - killed_s)
        tally.over.set()
        for thread in threads:
            thread.join()
    bench.note(
        f"crash of a worker under load (8 clients, 3 kills): {tally.succeeded} answers, {tally.failed} failures "
        f"(at most 24 were in flight at the kills), "
        f"back after {', '.join(f'{one:.2f}' for one in took_s)} s; bar < 2 s"
    )


@dataclass(slots=True)
class _Tally:
    succeeded: int = 0
    failed: int = 0
    begun: list[tuple[float, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def first_after(self, when_s: float) -> float | None:
        """When the first answer came to a request that was begun later."""
        return min((end for start, end in list(self.begun)[-200:] if start > when_s), default=None)


def _ask(client: blindai.Client, model: BenchModel, tally: _Tally) -> None:
    array = next(iter(model.inputs.values()))
    while not tally.over.is_set():
        start_s = time.monotonic()
        try:
            client.infer(model.name, array)
        except BlindAIError:
            tally.failed += 1
            time.sleep(0.05)
        else:
            tally.succeeded += 1
            tally.begun.append((start_s, time.monotonic()))


PARTS: dict[str, Callable[[Bench], None]] = {
    "mlp": mlp,
    "forest": forest,
    "peers": peers,
    "table": table,
    "distilbert": distilbert,
    "resnet50": resnet50,
    "cores": cores,
    "crash": crash,
}
QUICK_PARTS = ("mlp", "crash")


def main(arguments: Sequence[str]) -> None:
    """Run the parts, print the bars, write the results."""
    quick = "quick" in arguments
    parts = [name for name in arguments if name in PARTS] or (QUICK_PARTS if quick else list(PARTS))
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(quick=quick, folder=Path(folder))
        for name in parts:
            print(f"── {name}", flush=True)
            try:
                PARTS[name](bench)
            except (RuntimeError, OSError, SystemExit) as error:
                bench.note(f"{name} failed: {error}")
            except KeyboardInterrupt:
                bench.note(f"{name} was broken off")
                break
    report.print_bars(bench.judged)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}{'-quick' if quick else ''}.json"
    path.write_text(json.dumps(_result(bench, time.monotonic() - begun_s), indent=1) + "\n")
    print(f"\n{path}, {time.monotonic() - begun_s:.0f} s")


def _result(bench: Bench, took_s: float) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(int(SERVER_CORE), int(LOAD_CORE)),
        "took_s": round(took_s),
        "bars": [{**asdict(one), "met": one.met} for one in bench.judged],
        "notes": bench.notes,
        "samples": bench.samples,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
