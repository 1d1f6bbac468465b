"""The table of causes (docs/reference/errors.md) is whole: each code with its status, and no words that nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from soak.causes import UnknownCauseError, cause_of, cause_of_rpc, causes

import blindai
from blindai import errors
from blindai.errors import BlindAIError
from blindai.oip.grpc.failures import code_of
from blindai.server.http_protocol import _REFUSALS
from blindai.server.sandbox import SandboxMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = "\n".join(path.read_text("utf-8") for path in Path(blindai.__file__).parent.rglob("*.py"))


def every_error() -> Iterator[type[BlindAIError]]:
    yield SandboxMissingError
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, BlindAIError):
            yield found


def test_every_code_has_a_cause_and_no_other_has() -> None:
    raised = {error.code for error in every_error()} | {code for _, code, _ in _REFUSALS.values()}
    assert {row.code for row in causes()} == raised


def test_every_code_has_a_row_for_words_that_are_not_listed() -> None:
    for code in {row.code for row in causes()}:
        assert sum(not row.words for row in causes() if row.code == code) == 1, code
        assert cause_of(code, "something else").startswith(f"{code}: ")


def test_statuses_are_those_that_are_sent() -> None:
    sent = {error.code: error.status for error in every_error() if hasattr(error, "status")}
    for row in causes():
        if row.code in sent:
            assert row.statuses == (sent[row.code],), row
            assert row.grpc == code_of(sent[row.code]), row


@pytest.mark.parametrize("words", sorted({row.words for row in causes() if row.words}))
def test_words_are_said_somewhere(words: str) -> None:
    assert all(part.strip() in SOURCE for part in words.split("…"))


def test_the_first_row_that_fits_counts() -> None:
    assert "is being started" not in cause_of("model_not_ready", "the model is unloaded")
    assert cause_of("model_not_ready", "the model's process has ended") != cause_of("model_not_ready", "x")
    assert cause_of("overloaded", "at most 5 inferences of a tenant run at a time").endswith("is used up")
    assert cause_of_rpc("UNAVAILABLE", "the model's process has ended (Try again.)").startswith("model_not_ready: ")


def test_what_is_not_in_the_table_has_no_cause() -> None:
    with pytest.raises(UnknownCauseError):
        cause_of("surprise", "boo")
    with pytest.raises(UnknownCauseError):
        cause_of_rpc("DATA_LOSS", "boo")
