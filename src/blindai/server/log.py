"""The server's log: what happened, never to whom or with what data.

Nothing that a user sent or may receive is ever an argument of a log call: no payload, shape, name, token or key.
In simulation every line says that it protects nothing.
"""

from __future__ import annotations

import logging
import sys

LOG = logging.getLogger("blindai.server")
SIMULATION_WARNING = "SIMULATION, NOT SECURE"


def configure_logging(level: str, *, simulated: bool) -> None:
    """Write to stderr, one line an event; libraries below us only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    mark = f"[{SIMULATION_WARNING}] " if simulated else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {mark}%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level.upper())
