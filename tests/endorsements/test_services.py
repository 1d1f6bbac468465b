"""The vendors' services are asked over real HTTP: what is tried again, what is refused, and what people are told."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes import papers
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai.endorsements.documents import MAX_DOCUMENT_BYTES, Kind, Resource, Service
from blindai.endorsements.services import (
    INTEL_ROOT_CRL,
    ROOT_CRL_PATH,
    Endpoints,
    MissingDocumentError,
    Patience,
    Services,
)
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.network
NOW = float(papers.BEGIN)
CRL = Resource(service=Service.AMD_KDS, path="/vcek/v1/Milan/crl", kind=Kind.CRL)


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        yield services


def near(far: VendorServices, waits: list[float] | None = None, **patience: float) -> Services:
    url = far.url
    return Services(
        endpoints=Endpoints(amd_kds=url, intel_pcs=url, nvidia_ocsp=url, nvidia_rim=url),
        patience=Patience(**patience),  # type: ignore[arg-type]  # attempts is whole where it is given
        sleep=(waits if waits is not None else []).append,
    )


def test_asks_and_reads_until_when_it_holds(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(body=papers.crl())
    document = near(far).get(CRL, now=NOW)
    assert (document.body, document.expires_at) == (papers.crl(), NOW + papers.DAY_S)
    assert far.asked == [CRL.path]


@pytest.mark.parametrize(
    "body",
    [
        papers.crl(),
        papers.crl(encoding=Encoding.PEM),
        papers.crl().hex().encode(),  # as a PCCS answers
        papers.crl().hex().upper().encode(),
    ],
)
def test_a_revocation_list_is_der_whatever_was_sent(far: VendorServices, body: bytes) -> None:
    far.replies[CRL.path] = Reply(body=body)
    document = near(far).get(CRL, now=NOW)
    assert document.body[:1] == b"\x30"
    assert document.expires_at == NOW + papers.DAY_S


def test_intel_sends_the_issuers_in_a_header(far: VendorServices) -> None:
    chain = papers.pem(papers.certificate(ends=NOW + 5), papers.certificate())
    header = "TCB-Info-Issuer-Chain"
    resource = Resource(service=Service.INTEL_PCS, path="/tcb?x=1", kind=Kind.COLLATERAL, issuer_header=header)
    far.replies["/tcb?x=1"] = Reply(body=papers.tcb_info(), headers={header: quote(chain)})
    document = near(far).get(resource, now=NOW)
    assert (document.body, document.issuers) == (papers.tcb_info(), chain)
    assert document.expires_at == NOW + 5  # the chain ends before the TCB info does


def test_intel_without_that_header_is_refused(far: VendorServices) -> None:
    resource = Resource(service=Service.INTEL_PCS, path="/tcb", kind=Kind.COLLATERAL, issuer_header="X-Chain")
    far.replies["/tcb"] = Reply(body=papers.tcb_info())
    with pytest.raises(EndorsementsUnavailableError, match="lacks the header X-Chain"):
        near(far).get(resource, now=NOW)


def test_ocsp_is_posted(far: VendorServices) -> None:
    resource = Resource(service=Service.NVIDIA_OCSP, path="/", kind=Kind.OCSP, post=b"a request")
    far.replies["/"] = Reply(body=papers.ocsp_response())
    assert near(far).get(resource, now=NOW).expires_at == NOW + papers.DAY_S
    assert far.posted == [b"a request"]


def test_a_manifest_is_taken_out_of_its_envelope(far: VendorServices) -> None:
    resource = Resource(service=Service.NVIDIA_RIM, path="/v1/rim/A", kind=Kind.RIM)
    far.replies["/v1/rim/A"] = Reply(body=json.dumps({"id": "A", "rim": base64.b64encode(b"<rim/>").decode()}).encode())
    assert near(far).get(resource, now=NOW).body == b"<rim/>"


def test_what_passes_is_tried_again_with_growing_waits(far: VendorServices) -> None:
    far.replies[CRL.path] = [Reply(status=503), Reply(status=500), Reply(status=429), Reply(body=papers.crl())]
    waits: list[float] = []
    assert near(far, waits).get(CRL, now=NOW).body == papers.crl()
    assert waits == [0.5, 1.0, 2.0]


def test_retry_after_is_kept_to(far: VendorServices) -> None:
    far.replies[CRL.path] = [Reply(status=429, headers={"Retry-After": "7"}), Reply(body=papers.crl())]
    waits: list[float] = []
    near(far, waits).get(CRL, now=NOW)
    assert waits == [7.0]


def test_a_long_retry_after_is_told_at_once(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(status=429, headers={"Retry-After": "600"})
    with pytest.raises(EndorsementsUnavailableError, match="asked again after 600 s") as caught:
        near(far).get(CRL, now=NOW)
    assert "wait 600 s" in caught.value.hint
    assert len(far.asked) == 1


def test_patience_ends_and_says_where_and_what_to_do(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(status=503, headers={"Retry-After": "Wed, 25 Nov 2026 00:00:00 GMT"})
    waits: list[float] = []
    with pytest.raises(EndorsementsUnavailableError, match=r"/vcek/v1/Milan/crl: status 503, 4 times") as caught:
        near(far, waits).get(CRL, now=NOW)
    assert "--kds" in caught.value.hint
    assert waits == [0.5, 1.0, 2.0]


def test_no_server_is_told_after_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    waits: list[float] = []
    source = Services(endpoints=Endpoints(amd_kds=url), sleep=waits.append)
    with pytest.raises(EndorsementsUnavailableError, match=r"no answer \(ConnectionRefusedError\), 4 times"):
        source.get(CRL, now=NOW)
    assert len(waits) == 3


def test_a_document_that_is_not_there_is_not_asked_for_again(far: VendorServices) -> None:
    with pytest.raises(MissingDocumentError, match="no such document"):
        near(far).get(CRL, now=NOW)
    assert len(far.asked) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 403])
def test_other_answers_are_refused_at_once(far: VendorServices, status: int) -> None:
    far.replies[CRL.path] = Reply(status=status, headers={"Location": f"{far.url}/elsewhere"})
    with pytest.raises(EndorsementsUnavailableError, match=f"status {status}"):
        near(far).get(CRL, now=NOW)
    assert far.asked == [CRL.path]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.CRL, b"<html>Please log in</html>"),
        (Kind.CRL, papers.crl() + b"\0"),
        (Kind.CRL, "\u0663\u0660".encode()),
        (Kind.CERTIFICATE, b"<html>"),
        (Kind.CHAIN, b""),
        (Kind.COLLATERAL, b"{}"),
        (Kind.COLLATERAL, b"[]"),
        (Kind.COLLATERAL, b'{"tcbInfo":{"nextUpdate":"soon"}}'),
        (Kind.COLLATERAL, b'{"tcbInfo":{"nextUpdate":7}}'),
        (Kind.OCSP, papers.ocsp_refusal()),
        (Kind.OCSP, papers.ocsp_response(next_update=None)),
        (Kind.RIM, b'{"rim":"***"}'),
        (Kind.RIM, b'{"rim":"AAAA"}'),
        (Kind.RIM, b"not XML"),
    ],
)
def test_what_is_no_such_document_is_refused(far: VendorServices, kind: Kind, body: bytes) -> None:
    far.replies["/x"] = Reply(body=body)
    with pytest.raises(EndorsementsUnavailableError, match=f"expected {kind.value}") as caught:
        near(far).get(Resource(service=Service.AMD_KDS, path="/x", kind=kind), now=NOW)
    assert "in between" in caught.value.hint


def test_an_answer_that_drips_ends_with_the_patience(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(body=papers.crl(), stalls_s=0.6)
    with pytest.raises(EndorsementsUnavailableError, match="TimeoutError"):
        near(far, attempts=1, timeout_s=0.2).get(CRL, now=NOW)


def test_an_answer_cut_short_is_no_answer(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(body=papers.crl(), cut_bytes=1)
    with pytest.raises(EndorsementsUnavailableError, match="2 times"):
        near(far, attempts=2).get(CRL, now=NOW)


def test_an_answer_too_large_is_refused(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(body=bytes(MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(EndorsementsUnavailableError, match=f"passes {MAX_DOCUMENT_BYTES} bytes"):
        near(far).get(CRL, now=NOW)


def test_addresses_are_the_vendors_unless_said() -> None:
    root_crl = Resource(service=Service.INTEL_PCS, path=ROOT_CRL_PATH, kind=Kind.CRL)
    assert Endpoints().url(CRL) == "https://kdsintf.amd.com/vcek/v1/Milan/crl"
    assert Endpoints().url(root_crl) == INTEL_ROOT_CRL
    for pccs in ("https://pccs:8081", "https://pccs:8081/", "https://pccs:8081/sgx/certification/v4/"):
        assert Endpoints(intel_pcs=pccs).url(root_crl) == f"https://pccs:8081{ROOT_CRL_PATH}"


@pytest.mark.parametrize("address", ["file:///etc", "kds", "https://", "https://kds/?x=", "https://kds/#x"])
def test_an_address_is_one(address: str) -> None:
    with pytest.raises(ValueError, match="amd_kds is https://host"):
        Endpoints(amd_kds=address)


@pytest.fixture
def own_certificate(tmp_path: Path) -> Path:
    """Key and certificate of a PCCS that nobody else knows, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(subject_name=papers.NAME, issuer_name=papers.NAME, public_key=key.public_key())
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=9))
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    own_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "own.pem").write_bytes(own_key + builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return tmp_path / "own.pem"


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_it_is_named(own_certificate: Path) -> None:
    crl = Resource(service=Service.INTEL_PCS, path=ROOT_CRL_PATH, kind=Kind.CRL)
    with vendor_services(own_certificate) as far:
        far.replies[ROOT_CRL_PATH] = Reply(body=papers.crl())
        with pytest.raises(EndorsementsUnavailableError, match="SSLCertVerificationError"):
            near(far).get(crl, now=NOW)
        named = Endpoints(intel_pcs=far.url, intel_ca_file=str(own_certificate))
        assert Services(endpoints=named).get(crl, now=NOW).body == papers.crl()
        assert far.asked == [ROOT_CRL_PATH]


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 two\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200]
)
def test_what_speaks_no_http_is_told(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        source = Services(endpoints=Endpoints(amd_kds=f"http://127.0.0.1:{server.getsockname()[1]}"))
        with pytest.raises(EndorsementsUnavailableError, match="not plain HTTP"):
            source.get(CRL, now=NOW)
        thread.join()


def test_many_small_pieces_take_no_longer_than_one(far: VendorServices) -> None:
    far.replies[CRL.path] = Reply(body=papers.crl(), drips_s=0.05)
    with pytest.raises(EndorsementsUnavailableError, match="TimeoutError"):
        near(far, attempts=1, timeout_s=0.3).get(CRL, now=NOW)
