"""The classification extension (C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from conformance.checks import binary_outputs, check, entry, infer, infer_binary, refused, succeeded, tensor

if TYPE_CHECKING:
    from conformance.server_under_test import Answer, ServerUnderTest

_INPUT = tensor("INPUT0", "FP32", [1, 4], [1, 5, 10, 4])


def _classes(server: ServerUnderTest, count: Any, **parameters: Any) -> Answer:
    wished = [{"name": "OUTPUT0", "parameters": {"classification": count, **parameters}}]
    return infer(server, "id_fp32", [_INPUT], outputs=wished)


@check("C1")
def _two(server: ServerUnderTest) -> None:
    """The two largest, as text; in binary too."""
    found = succeeded(_classes(server, 2))["outputs"]
    assert found == [tensor("OUTPUT0", "BYTES", [1, 2], ["10.000000:2", "5.000000:1"])]
    ((_, raw),) = binary_outputs(_classes(server, 1, binary_data=True))
    assert raw == b"\x0b\0\0\x0010.000000:2"


@check("C2")
def _clipped(server: ServerUnderTest) -> None:
    """No more than there are."""
    assert succeeded(_classes(server, 100))["outputs"][0]["shape"] == [1, 4]


@check("C3")
def _negative(server: ServerUnderTest) -> None:
    """A count is a whole number."""
    for count in (-1, 1.5, "2", None):
        refused(_classes(server, count), 400)


@check("C4")
def _impossible(server: ServerUnderTest) -> None:
    """Not of text, and not of too many elements."""
    wished = [{"name": "OUTPUT0", "parameters": {"classification": 1}}]
    refused(infer(server, "id_bytes", [tensor("INPUT0", "BYTES", [1], ["a"])], outputs=wished), 400, "classification")
    large = (entry("INPUT0", "FP32", [1, 1_000_001]), np.zeros(1_000_001, "<f4").tobytes())
    refused(infer_binary(server, "id_fp32", [large], outputs=wished), 400, "classification")
