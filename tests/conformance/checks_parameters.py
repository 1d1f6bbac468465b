"""Parameters of a request (Q)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.checks import check, infer, refused, simple_inputs, succeeded

if TYPE_CHECKING:
    from conformance.server_under_test import Answer, ServerUnderTest


def _with(server: ServerUnderTest, parameters: Any) -> Answer:
    return infer(server, "simple", simple_inputs(), parameters=parameters)


@check("Q1")
def _own(server: ServerUnderTest) -> None:
    """One's own parameters are ignored."""
    succeeded(_with(server, {"a": True, "b": 5, "c": "text", "d": -1}))


@check("Q2")
def _fraction(server: ServerUnderTest) -> None:
    """Fractions too."""
    succeeded(_with(server, {"temperature": 0.5}))


@check("Q3")
def _object(server: ServerUnderTest) -> None:
    """Neither objects, lists nor null."""
    for value in ({}, {"x": 1}, [], [1], None):
        refused(_with(server, {"x": value}), 400)
    refused(_with(server, []), 400)


@check("Q4")
def _reserved(server: ServerUnderTest) -> None:
    """Names that Triton keeps for itself."""
    refused(_with(server, {"triton_enable_empty_final_response": True}), 400, "triton_", "reserved")


@check("Q5")
def _schedule(server: ServerUnderTest) -> None:
    """Priority and timeout without a use for them."""
    succeeded(_with(server, {"priority": 1, "timeout": 10_000_000}))
    succeeded(infer(server, "id_none", [], parameters={"priority": 0, "timeout": 0}))


@check("Q6")
def _sequence(server: ServerUnderTest) -> None:
    """A sequence of a model without state."""
    succeeded(_with(server, {"sequence_id": 7, "sequence_start": True, "sequence_end": True}))


@check("Q7")
def _wrong_type(server: ServerUnderTest) -> None:
    """Priority and timeout are whole numbers."""
    for name in ("priority", "timeout"):
        for value in ("1", 1.5, -1, True, 2**64):
            refused(_with(server, {name: value}), 400, name)
