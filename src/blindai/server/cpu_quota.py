"""How many threads can really run here: the affinity, cut to the control group's quota.

Leaves out: how they are divided among the processes of a model (`worker_pool`).
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def available_cpus() -> int:
    """How many threads can really run: the affinity, cut to the control group's quota."""
    affinity = len(os.sched_getaffinity(0))
    return max(1, min(affinity, math.ceil(_cgroup_quota() or affinity)))


def _cgroup_quota() -> float | None:
    """The smallest quota of this process's control group (version 2) and those above it, in CPUs."""
    quotas = []
    try:
        own = Path("/proc/self/cgroup").read_text("ascii").rpartition("0::")[2].strip()
        group = Path("/sys/fs/cgroup") / own.lstrip("/")
        for path in (group, *group.parents):
            with contextlib.suppress(OSError):
                quotas.append(parse_quota((path / "cpu.max").read_text("ascii")))
    except (OSError, ValueError):
        return None
    return min((quota for quota in quotas if quota is not None), default=None)


def parse_quota(cpu_max: str) -> float | None:
    """CPUs in a `cpu.max` file: `max 100000` is none, `150000 100000` is 1.5.

    Raises:
        ValueError: another form.
    """
    quota, period = cpu_max.split()
    return None if quota == "max" else int(quota) / int(period)
