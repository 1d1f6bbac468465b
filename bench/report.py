"""Tables on the terminal, and docs/benchmarks.md's plots, of what `run.py` found.

    python bench/report.py bench/results/DATE.json …    writes them into docs/benchmarks.md, and docs/benchmarks-*.svg

Leaves out: measuring.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from blindai.cli.bench_plot import svg_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bars import Judged

COLUMNS = ("target", "conn.", "answers/s", "p50 ms", "p99 ms", "main µs", "worker µs", "client µs", "seal + open µs")
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- results: written by bench/report.py -->", "<!-- end of results -->"


def row(sample: dict[str, Any]) -> tuple[str, ...]:
    """One line of a table."""
    found = sample["median"]
    sealing = found["seal_us"] + found["open_us"]
    return (
        sample["target"],
        str(sample["connections"]),
        f"{found['rate']:,.0f}" if found["rate"] >= 100 else f"{found['rate']:.1f}",
        f"{found['p50_ms']:.2f}",
        f"{found['p99_ms']:.2f}",
        f"{found['main_us']:.0f}",
        f"{found['worker_us']:.0f}",
        f"{found['client_us']:.0f}",
        f"{found['seal_us']:.0f} + {found['open_us']:.0f}" if sealing else "",
    )


def print_samples(samples: Sequence[dict[str, Any]]) -> None:
    """What was just measured."""
    table = Table(*COLUMNS, title=f"{samples[0]['work']}: medians", title_justify="left")
    for sample in samples:
        table.add_row(*row(sample))
    Console(width=130).print(table)


def print_bars(judged: Sequence[Judged]) -> None:
    """Every bar with min–median–max of its ratio."""
    table = Table("work", "ours : theirs", "bar", "by", "ratio of CPU", "ratio of rate", "met", title="bars")
    for one in judged:
        bar = one.bar
        names = f"{bar.ours} : {bar.theirs}"
        met = "yes" if one.met else "NO"
        table.add_row(bar.work, names, f"≥ {bar.least:.2f}", bar.by, str(one.cpu or ""), str(one.rate), met)
    Console(width=160).print(table)


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['least']:.2f}–{found['middle']:.2f}–{found['most']:.2f}" if found else ""


def markdown(result: dict[str, Any]) -> str:
    """The tables of docs/benchmarks.md."""
    lines = ["| work | ours : theirs | bar | decided by | ratio of CPU | ratio of rate | met |", "|" + "---|" * 7]
    for one in result["bars"]:
        bar = one["bar"]
        cells = (bar["work"], f"{bar['ours']} : {bar['theirs']}", f"≥ {bar['least']:.2f}", bar["by"])
        lines.append(
            "| "
            + " | ".join((*cells, _ratio(one["cpu"]), _ratio(one["rate"]), "yes" if one["met"] else "**no**"))
            + " |"
        )
    work = ""
    for sample in result["samples"]:
        if sample["work"] != work:
            work = sample["work"]
            lines += ["", f"### {work}", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines.append("| " + " | ".join(row(sample)) + " |")
    lines += ["", *(f"- {note}" for note in result["notes"])]
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> list[Path]:
    """One plot for each work at its largest number of connections: the server's CPU, or the rate of a real model."""
    drawn = []
    for work in dict.fromkeys(sample["work"] for sample in result["samples"]):
        of_work = [sample for sample in result["samples"] if sample["work"] == work]
        most = max(sample["connections"] for sample in of_work)
        shown = [sample for sample in of_work if sample["connections"] == most]
        by_cpu = "MLP" in work or work == "forest"
        bars = [(one["target"], *_value(one["median"], by_cpu=by_cpu)) for one in shown]
        what = "server's CPU per request (less is better)" if by_cpu else "answers in a second"
        path = DOCS / f"benchmarks-{work.lower().replace(' ', '-').replace(',', '')}.svg"
        path.write_text(svg_bars(f"{work}, {most} connections: {what}", bars))
        drawn.append(path)
    return drawn


def _value(found: dict[str, float], *, by_cpu: bool) -> tuple[float, str]:
    if by_cpu:
        cpu_us = found["main_us"] + found["worker_us"]
        return cpu_us, f"{cpu_us:.0f} µs"
    return found["rate"], f"{found['rate']:.1f}/s"


def write_page(result: dict[str, Any]) -> None:
    """Put tables and plots into docs/benchmarks.md, between its marks."""
    page = DOCS / "benchmarks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    found = result["machine"]
    load = ", ".join(f"{one:.1f}" for one in found["load_average"])
    where = (
        f"{result['when']}: {found['cpus']} × {found['cpu']}, Python {found['python']}, "
        f"ONNX Runtime {found['onnxruntime']}, load average at the end {load}; "
        f"a busy neighbour makes the same Python {found['busy_neighbour']:.2f} times as dear."
    )
    plots = "\n".join(f"![{path.stem}]({path.name})" for path in draw(result))
    page.write_text(f"{before}{BEGIN}\n{where}\n\n{markdown(result)}\n\n{plots}\n{END}{after}")


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs of some parts each, on one machine, as one: when and where is the first one's.

    Of work that was measured again, the last run's samples and bars count, whole.
    """
    last = {sample["work"]: index for index, result in enumerate(results) for sample in result["samples"]}
    samples = [
        sample for index, result in enumerate(results) for sample in result["samples"] if last[sample["work"]] == index
    ]
    bars = {tuple(one["bar"][name] for name in ("work", "ours", "theirs")): one for one in _all(results, "bars")}
    return {**results[0], "bars": [*bars.values()], "notes": _all(results, "notes"), "samples": samples}


def _all(results: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [one for result in results for one in result[name]]


if __name__ == "__main__":
    write_page(joined([json.loads(Path(path).read_text()) for path in sys.argv[1:]]))
