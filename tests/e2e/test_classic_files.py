"""The files that `connect_server` and `connect` take: `policy=` and `certificate=`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

import blindai
from blindai.client import AsyncClient, AttestationError, BlindAiClient, connect
from blindai.errors import ConnectionLostError, InvalidInputError, InvalidPolicyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.running_server import RunningServer

pytestmark = pytest.mark.network
ACCEPTS_SIMULATION = """version = 1
insecure_simulation = true
operator.skip = "a test names nobody"
level.minimum = "fresh"
runtime.skip = "likewise"
release.skip = "likewise"
tee.simulation.measurement.skip = "likewise"
"""
OF_THE_SEED = """
mr_enclave = "4000659c8f1c3094f9eefa7fb9ccc5bdb21b6f2893cdb5081f179e737d0c7247"
allow_debug = false
attributes_flags_hex = "0x4"
attributes_mask_flags_hex = "0xfffffffffffffffd"
attributes_xfrm_hex = "0x3"
attributes_mask_xfrm_hex = "0xffffffffffffff1b"
misc_select_hex = "0x0"
misc_mask_hex = "0xffffffff"
"""


@pytest.fixture
def certificate(server_url: str, tmp_path: Path) -> Path:
    """What `openssl s_client` shows of the server."""
    host, port = server_url.removeprefix("https://").split(":")
    path = tmp_path / "host_server.pem"
    path.write_text(ssl.get_server_certificate((host, int(port))))
    return path


@pytest.fixture
def other_certificate(start_server: Callable[..., RunningServer], tmp_path: Path) -> Path:
    """That of another server."""
    path = tmp_path / "other.pem"
    path.write_text(ssl.get_server_certificate(("127.0.0.1", start_server().port)))
    return path


def test_a_policy_file_decides(server_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(ACCEPTS_SIMULATION)
    with BlindAiClient() as client:
        client.connect_server(server_url, policy=policy)
        assert client.is_connected()
    with connect(server_url, policy=str(policy)) as connection:
        assert connection.is_connected()


def test_a_policy_file_of_the_seed_accepts_no_simulation(server_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(OF_THE_SEED)
    client = BlindAiClient()
    with pytest.raises(AttestationError):
        client.connect_server(server_url, policy=str(policy))
    assert not client.is_connected()


def test_a_policy_is_a_file_and_no_preset(server_url: str, tmp_path: Path) -> None:
    for name in (str(tmp_path / "policy.toml"), "insecure-simulation"):
        with pytest.raises(FileNotFoundError, match="no policy file"):
            BlindAiClient().connect_server(server_url, policy=name)
    (tmp_path / "policy.toml").write_text("nonsense = ")
    with pytest.raises(InvalidPolicyError):
        BlindAiClient().connect_server(server_url, policy=str(tmp_path / "policy.toml"))


async def test_the_certificate_in_the_file_is_shown(server_url: str, certificate: Path) -> None:
    with BlindAiClient() as client:
        client.connect_server(server_url, certificate=str(certificate), simulation=True)
        assert client.is_connected()
    with connect(server_url, certificate=certificate, simulation=True) as connection:
        assert connection.is_connected()
    with blindai.connect(server_url, certificate=certificate, insecure_simulation=True) as modern:
        assert modern.models() is not None
    async with AsyncClient(server_url, certificate=certificate, insecure_simulation=True) as twin:
        assert await twin.models() is not None


async def test_another_certificate_is_refused(
    server_url: str, certificate: Path, other_certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 0.3, a variable of the environment silently took the place of the pinned certificate."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(certificate))
    with pytest.raises(ConnectionLostError, match="cannot connect") as refused:
        BlindAiClient().connect_server(server_url, certificate=str(other_certificate), simulation=True)
    assert "another certificate" in refused.value.hint
    with pytest.raises(ConnectionLostError, match="cannot connect") as refused:
        async with AsyncClient(server_url, certificate=other_certificate, insecure_simulation=True):
            pass
    assert "another certificate" in refused.value.hint


def test_the_environment_does_not_refuse_the_right_certificate(
    server_url: str, certificate: Path, other_certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(other_certificate))
    with BlindAiClient() as client:
        client.connect_server(server_url, certificate=str(certificate), simulation=True)
        assert client.is_connected()


def test_a_certificate_does_not_take_the_place_of_the_evidence(server_url: str, certificate: Path) -> None:
    with pytest.raises(AttestationError):
        BlindAiClient().connect_server(server_url, certificate=str(certificate))


def test_a_certificate_file_that_is_none(server_url: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no certificate file"):
        BlindAiClient().connect_server(server_url, certificate=str(tmp_path / "gone.pem"), simulation=True)
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\x30\x82"):
        (tmp_path / "none.pem").write_bytes(content)
        with pytest.raises(InvalidInputError, match="holds no certificate"):
            BlindAiClient().connect_server(server_url, certificate=str(tmp_path / "none.pem"), simulation=True)
    with pytest.raises(InvalidInputError, match="holds no certificate"):
        BlindAiClient().connect_server(server_url, certificate=str(tmp_path), simulation=True)


def test_a_certificate_needs_tls(certificate: Path) -> None:
    with pytest.raises(InvalidInputError, match="https"):
        BlindAiClient().connect_server("http://127.0.0.1:1", certificate=str(certificate), simulation=True)
