"""On what was measured: processor, interpreter and its build, and how much a busy neighbour costs.

Virtual CPUs are often two threads of one core. Then a load that keeps its CPU busy makes the server's work dearer, an
interpreter's most of all; so the result says by how much.
Leaves out: measuring servers (measure.py).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import onnxruntime

_LOOPS, _TRIES = 200_000, 7


def machine(server_core: int, load_core: int) -> dict[str, Any]:
    """What a result's reader must know; takes about a second."""
    names = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus": os.cpu_count(),
        "python": f"{platform.python_version()} ({_build()})",
        "onnxruntime": onnxruntime.__version__,
        "load_average": os.getloadavg(),
        "busy_neighbour": round(_busy_neighbour(server_core, load_core), 2),
    }


def _build() -> str:
    """Interpreters that were compiled without profiles are slower by 10 to 40 %."""
    if sys.base_prefix == "/usr":
        return "the distribution's"
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    return "optimised build" if "--enable-optimizations" in arguments else "build without optimisations"


def _busy_neighbour(server_core: int, load_core: int) -> float:
    """CPU time of the same Python on one CPU while another is kept busy, divided by that while it is idle."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {server_core})
    try:
        alone_s = _quickest_s()
        busy = [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{load_core}}})\nwhile True: pass"]
        with subprocess.Popen(busy) as neighbour:
            try:
                time.sleep(0.2)
                return _quickest_s() / alone_s
            finally:
                neighbour.kill()
    finally:
        os.sched_setaffinity(0, before)


def _quickest_s() -> float:
    found = []
    for _ in range(_TRIES):
        begun_s = time.thread_time()
        for number in range(_LOOPS):
            str(number)
        found.append(time.thread_time() - begun_s)
    return min(found)
