"""docs/guides/operator.md says of each setting and metric what is true."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from blindai.server.metrics import GAUGES, TOTALS, Metrics
from blindai.server.settings import Settings

GUIDE = (Path(__file__).parents[2] / "docs/guides/operator.md").read_text("utf-8")
WORDS = {
    "host": "::1", "service": "other", "data_dir": "/srv", "log_level": "debug", "model_repository": "/models",
    "model_store": "/kept",
    "tpm": "/dev/tpmrm0", "tpm_ek_issuers": "ek-issuers.pem",
    "isolation": "model", "authentication": "required", "access": "access.toml",
    "execution_providers": ("openvino", "cpu"), "telemetry_endpoint": "http://127.0.0.1:4318/v1/metrics",
}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", GUIDE, re.MULTILINE | re.DOTALL)
    assert section
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def default(cell: str) -> Any:
    """A cell's value, written as in the configuration file; `none` is no value."""
    if cell == "none":
        return None
    value = tomllib.loads(f"value = {cell.split('`')[1]}")["value"]
    return tuple(value) if isinstance(value, list) else value


def attested(name: str) -> str:
    """The member of the runtime policy that changes with a setting, beside the digest."""
    before = Settings()
    value = getattr(before, name)
    other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else WORDS[name]
    change: dict[str, Any] = {name: other}
    old, new = (flat(one.runtime_policy().members()) for one in (before, dataclasses.replace(before, **change)))
    assert old["configuration"] != new["configuration"]
    changed = [f"`{member}`" for member in old if old[member] != new[member] and member != "configuration"]
    return ", ".join(changed) or "–"


def flat(members: dict[str, Any]) -> dict[str, Any]:
    limits = {f"limits.{name}": value for name, value in members["limits"].items()}
    return {**{name: value for name, value in members.items() if name != "limits"}, **limits}


def test_every_setting_is_there_with_its_default_and_what_attests_it() -> None:
    table = rows("Settings")
    told = [(cells[0].strip("`"), default(cells[1]), cells[2]) for cells in table]
    fields = dataclasses.fields(Settings)
    assert told == [(field.name, field.default, attested(field.name)) for field in fields]
    assert all(len(cells) == 4 and len(cells[3]) > 10 for cells in table)


def test_every_metric_is_there_with_its_kind_and_labels() -> None:
    metrics = Metrics()
    metrics.failed("overloaded")
    for name in (*GAUGES, *TOTALS):
        metrics.read_from(name, lambda: 1.0)
    found = {
        family.name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for family in metrics.collect()
    }
    told = {name.strip("`"): (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows("Metrics")}
    assert told == found
