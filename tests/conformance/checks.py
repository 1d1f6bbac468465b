"""The suite's table, and what checks have in common: expected answers, requests, binary bodies.

Each check is a function under its id of the design's list (section letter and number); some ids have several cases.
Leaves out: the checks (`checks_*`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conformance.server_under_test import Answer, ServerUnderTest

    Run = Callable[[ServerUnderTest], None]

LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the list."""

    id: str
    run: Run
    words: str


TABLE: dict[str, Check] = {}


def check(identifier: str) -> Callable[[Run], Run]:
    """Enter a function in the table."""

    def enter(run: Run) -> Run:
        assert identifier not in TABLE, identifier
        TABLE[identifier] = Check(id=identifier, run=run, words=(run.__doc__ or "").strip())
        return run

    return enter


def succeeded(answer: Answer, **members: Any) -> Any:
    """The JSON of a 200, which has these members."""
    assert answer.status == 200, (answer.status, answer.body[:400])
    assert answer.is_json(), answer.headers
    found = answer.json
    for name, value in members.items():
        assert found[name] == value, (name, found[name], value)
    return found


def refused(answer: Answer, status: int | tuple[int, ...], *words: str) -> str:
    """The words of a failure: that status, JSON, and a text under `error` that has these words."""
    statuses = (status,) if isinstance(status, int) else status
    assert answer.status in statuses, (answer.status, answer.body[:400])
    assert answer.is_json(), answer.headers
    text = answer.json["error"]
    assert isinstance(text, str)
    assert text
    for word in words:
        assert word in text, text
    return text


ROW = list(range(16))
ONES = [1] * 16


def tensor(name: str, datatype: str, shape: Sequence[Any], data: Any) -> dict[str, Any]:
    """An input in JSON."""
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def simple_inputs(**changes: Any) -> list[dict[str, Any]]:
    """Both inputs of `simple`; changes are of INPUT0."""
    return [{**tensor("INPUT0", "INT32", [1, 16], ROW), **changes}, tensor("INPUT1", "INT32", [1, 16], ONES)]


def infer(server: ServerUnderTest, model: str, inputs: Any, **members: Any) -> Answer:
    """Run a model on JSON."""
    return server.ask("POST", f"/v2/models/{model}/infer", {"inputs": inputs, **members})


def infer_simple(server: ServerUnderTest, **changes: Any) -> Answer:
    """Run `simple`, with INPUT0 changed."""
    return infer(server, "simple", simple_inputs(**changes))


def infer_raw_json(server: ServerUnderTest, model: str, text: str) -> Answer:
    """Run a model on JSON as it is written here."""
    return server.ask("POST", f"/v2/models/{model}/infer", text.encode())


def data_of(answer: Answer, output: int = 0) -> Any:
    """The `data` of an output in JSON."""
    return succeeded(answer)["outputs"][output]["data"]


def binary_body(inputs: Sequence[tuple[dict[str, Any], bytes]], **members: Any) -> tuple[bytes, dict[str, str]]:
    """A body with raw tensors, and its header."""
    entries = [{**entry, "parameters": {"binary_data_size": len(raw)}} for entry, raw in inputs]
    header = json.dumps({"inputs": entries, **members}).encode()
    return header + b"".join(raw for _, raw in inputs), {LENGTH: str(len(header))}


def entry(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    """An input whose data follow the JSON."""
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def raw_simple() -> list[tuple[dict[str, Any], bytes]]:
    """Both inputs of `simple` in binary."""
    rows = (("INPUT0", ROW), ("INPUT1", ONES))
    return [(entry(name, "INT32", [1, 16]), np.array(row, "<i4").tobytes()) for name, row in rows]


def infer_binary(
    server: ServerUnderTest, model: str, inputs: Sequence[tuple[dict[str, Any], bytes]], **members: Any
) -> Answer:
    """Run a model on raw tensors."""
    body, headers = binary_body(inputs, **members)
    return server.ask("POST", f"/v2/models/{model}/infer", body, **headers)


def binary_outputs(answer: Answer) -> list[tuple[dict[str, Any], bytes | None]]:
    """The outputs of an answer with raw tensors; `None` for one in JSON."""
    assert answer.status == 200, (answer.status, answer.body[:400])
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    found, offset = [], length
    for output in json.loads(answer.body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        found.append((output, None if size is None else answer.body[offset : offset + size]))
        offset += size or 0
    assert offset == len(answer.body)
    return found


def require_alive(server: ServerUnderTest) -> None:
    """After something hostile."""
    succeeded(server.ask("GET", "/v2/health/live"), live=True)
