"""What happens to a client when keys end, servers die, processes fork; and that it uses its session at all."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models

import blindai
from blindai.channel.exchange import REQUEST_MAGIC, SESSION_REQUEST_MAGIC
from blindai.cli.operator_view import RecordingRelay
from blindai.client.connection import SYSTEM_CLOCK
from blindai.client.transport import parse_server_url
from blindai.errors import ConnectionLostError, InvalidReceiptError, ModelNotFoundError, PeerKeyMismatchError
from blindai.server.tls_identity import make_tls_identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

pytestmark = pytest.mark.network

FEW = 3  # one attestation serves all; a thread that was interrupted at the wrong moment may make another


@pytest.fixture
def doubler(client: Client, tmp_path: Path) -> str:
    """Y = 2 x over FP32 [n, 3]."""
    return client.upload_model(tiny_models.times(tmp_path / "lasting.onnx", 2)).name


def require_right(client: Client, name: str) -> bytes:
    """One right answer; returns the id of the keys that signed for it."""
    result = client.infer(name, [1, 2, 3])
    assert result["y"].tolist() == [[2, 4, 6]]
    return result.receipt.keyset_id


def test_one_request_opens_a_session_and_all_others_use_it(server_url: str, doubler: str) -> None:
    with RecordingRelay(parse_server_url(server_url), make_tls_identity("127.0.0.1").context()) as relay:
        with blindai.connect(relay.url, insecure_simulation=True) as client:
            for _ in range(20):
                require_right(client, doubler)
        seen = bytes(relay.recording)
    assert seen.count(REQUEST_MAGIC) == 1
    assert seen.count(SESSION_REQUEST_MAGIC) == 20  # the metadata opened it, and 20 inferences followed


def test_without_sessions_each_request_is_sealed_on_its_own(server_url: str, doubler: str) -> None:
    with RecordingRelay(parse_server_url(server_url), make_tls_identity("127.0.0.1").context()) as relay:
        with blindai.connect(relay.url, insecure_simulation=True, sessions=False) as client:
            for _ in range(5):
                require_right(client, doubler)
        seen = bytes(relay.recording)
    assert seen.count(REQUEST_MAGIC) == 6  # the metadata, and 5 inferences
    assert SESSION_REQUEST_MAGIC not in seen


def test_padding_can_be_switched_off_and_the_receipt_says_so(server_url: str, doubler: str) -> None:
    with blindai.connect(server_url, insecure_simulation=True, padding=False) as client:
        assert not client.infer(doubler, [1, 2, 3]).receipt.padded
    with blindai.connect(server_url, insecure_simulation=True) as client:
        assert client.infer(doubler, [1, 2, 3]).receipt.padded


@pytest.mark.parametrize("sessions", [True, False])
def test_receipts_can_be_switched_off_and_asking_for_one_says_why(
    server_url: str, tmp_path: Path, *, sessions: bool
) -> None:
    with blindai.connect(server_url, insecure_simulation=True, receipts=False, sessions=sessions) as client:
        uploaded = client.upload_model(tiny_models.times(tmp_path / "unsigned.onnx", 2))
        assert [model.name for model in client.models()].count("unsigned") == 1
        results = [client.infer("unsigned", [1, 2, 3]) for _ in range(2)]
        client.delete_model("unsigned")
    assert [result["y"].tolist() for result in results] == [[[2, 4, 6]]] * 2
    for result in results:
        for ask in (lambda: uploaded.receipt, lambda: result.receipt, result.proof, result.opening):  # noqa: B023
            with pytest.raises(InvalidReceiptError, match="receipts=False asks for none"):
                ask()


def test_keys_that_have_ended_are_replaced_once_and_silently(client: Client, doubler: str) -> None:
    before = require_right(client, doubler)
    keyset = client._connection.attested
    assert keyset is not None
    ends = iter([keyset.keyset.not_after + 1.0])
    client._connection.clock = replace(SYSTEM_CLOCK, wall=lambda: next(ends, time.time()))
    after = require_right(client, doubler)
    assert after != before
    assert require_right(client, doubler) == after


def test_after_a_long_pause_the_session_and_the_keys_are_new(client: Client, doubler: str) -> None:
    before = require_right(client, doubler)
    client._connection.clock = replace(SYSTEM_CLOCK, steady=lambda: SYSTEM_CLOCK.steady() + 3600)
    after = require_right(client, doubler)
    assert after != before
    assert require_right(client, doubler) == after


def test_many_threads_may_find_the_keys_ended_at_once(client: Client, doubler: str) -> None:
    require_right(client, doubler)
    client._connection.clock = replace(SYSTEM_CLOCK, steady=lambda: SYSTEM_CLOCK.steady() + 3600)
    start = threading.Barrier(64)

    def work(_: int) -> bytes:
        start.wait()
        return require_right(client, doubler)

    with ThreadPoolExecutor(64) as pool:
        assert len(set(pool.map(work, range(64)))) <= FEW


def test_a_killed_server_is_a_connection_error(empty_server: RunningServer) -> None:
    with blindai.connect(empty_server.url, insecure_simulation=True) as client:
        client.models()
        empty_server.kill()
        for _ in range(2):
            with pytest.raises(ConnectionError) as lost:
                client.models()
            assert isinstance(lost.value, ConnectionLostError)
            assert lost.value.hint


def test_a_restarted_server_is_attested_anew_and_silently(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    path = tiny_models.times(tmp_path / "again.onnx", 2)
    first = start_server()
    with blindai.connect(first.url, insecure_simulation=True) as client:
        client.upload_model(path)
        before = require_right(client, "again")
        first.kill()
        start_server(first.port)
        with pytest.raises(ModelNotFoundError, match="Request for unknown model"):
            client.infer("again", [1, 2, 3])  # models live as long as their enclave
        client.upload_model(path)
        assert require_right(client, "again") != before


def test_an_upload_is_never_repeated_silently(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    path = tiny_models.times(tmp_path / "again.onnx", 2)
    first = start_server()
    with blindai.connect(first.url, insecure_simulation=True) as client:
        client.models()
        first.kill()
        start_server(first.port)
        with pytest.raises(PeerKeyMismatchError, match="never repeated silently") as refused:
            client.upload_model(path)
        assert "list the models" in refused.value.hint
        assert client.models() == ()
        client.upload_model(path)
        require_right(client, "again")


def test_many_at_once_survive_a_restart(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    first = start_server()
    with blindai.connect(first.url, insecure_simulation=True) as client:
        client.models()
        first.kill()
        second = start_server(first.port)
        with blindai.connect(second.url, insecure_simulation=True) as owner:
            owner.upload_model(tiny_models.times(tmp_path / "again.onnx", 2))
        with ThreadPoolExecutor(64) as pool:
            assert len(set(pool.map(lambda _: require_right(client, "again"), range(64)))) <= FEW


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # xdist's own threads; Python 3.12 on
def test_a_forked_child_uses_the_same_client_object(client: Client, doubler: str) -> None:
    before = require_right(client, doubler)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # no pytest in here: whatever happens, the child ends
        code = 1
        try:
            os.write(write_end, require_right(client, doubler))
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    assert require_right(client, doubler) == before
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with os.fdopen(read_end, "rb") as pipe:
        assert len(pipe.read()) == 32
    assert require_right(client, doubler) == before  # the child disturbed neither session nor connection
