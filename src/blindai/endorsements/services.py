"""The vendors' own services and their mirrors, asked over HTTP with patience (docs/spec/endorsements.md §3).

What fails is tried again after a while, as long as that is worth it; every failure says which endpoint, and what to do.
Leaves out: caches and bundles (cache.py, bundle.py), and which documents a TEE needs (amd.py, intel.py, nvidia.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from blindai.endorsements.documents import MAX_DOCUMENT_BYTES, Kind, Service, read_document
from blindai.endorsements.http import Answer, Exchange, exchange
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.endorsements.documents import Document, Resource

# https://kdsintf.amd.com: AMD 57230 "VCEK Certificate and KDS Interface Specification" §4.
# https://api.trustedservices.intel.com: Intel PCS API v4; the root's CRL is where the certificates' own pointer says.
# NVIDIA: the addresses in its attestation documentation. All read 2026-11-25.
INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
INTEL_API = "/sgx/certification/v4"
ROOT_CRL_PATH = f"{INTEL_API}/rootcacrl"  # a PCCS has it here

_NOT_FOUND, _OK, _TOO_MANY = 404, 200, 429
_PASSING = frozenset({_TOO_MANY, 500, 502, 503, 504})
_OCSP_MEDIA_TYPE = "application/ocsp-request"


class MissingDocumentError(EndorsementsUnavailableError):
    """The source answered, and has no such document: asking again changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where each service is reached: the vendor's address, or that of a mirror or a PCCS.

    Attributes:
        vendor_crl: a mirror, which has each list under the host and path that a TPM's certificate names; empty asks
            that address itself.
        intel_ca_file: PEM of the authority of a PCCS with a certificate of its own; None trusts the system's.
    """

    amd_kds: str = "https://kdsintf.amd.com"
    intel_pcs: str = INTEL_PCS
    nvidia_ocsp: str = "https://ocsp.ndis.nvidia.com"
    nvidia_rim: str = "https://rim.attestation.nvidia.com"
    vendor_crl: str = ""
    intel_ca_file: str | None = None

    def __post_init__(self) -> None:
        for service in Service:
            if service is Service.VENDOR_CRL and not self.vendor_crl:
                continue
            address = urlsplit(getattr(self, service.value))
            if address.scheme not in {"https", "http"} or not address.hostname or address.query or address.fragment:
                raise ValueError(f"the address of {service.value} is https://host[:port][/path]")

    def url(self, resource: Resource) -> str:
        """The absolute address of a document; a PCCS may be given with or without its API's path."""
        base: str = getattr(self, resource.service.value).rstrip("/")
        if resource.service is Service.VENDOR_CRL:
            return f"{base}/{resource.path.partition('://')[2]}" if base else resource.path
        if resource.service is Service.INTEL_PCS:
            base = base.removesuffix(INTEL_API)
            if base == INTEL_PCS and resource.path == ROOT_CRL_PATH:
                return INTEL_ROOT_CRL
        return base + resource.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long it is tried.

    Attributes:
        attempts: at most so many exchanges for one document.
        timeout_s: for one exchange.
        first_wait_s: before the second attempt; it doubles from one to the next.
        longest_wait_s: what a service may ask for with `Retry-After` before that counts as a failure.
    """

    attempts: int = 4
    timeout_s: float = 20.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The source that asks over the network.

    Attributes:
        send: makes one exchange; anything with the errors of `http.exchange`.
        sleep: waits for so many seconds.
    """

    endpoints: Endpoints = field(default_factory=Endpoints)
    patience: Patience = field(default_factory=Patience)
    send: Callable[[Exchange], Answer] = exchange
    sleep: Callable[[float], None] = time.sleep

    def get(self, resource: Resource, *, now: float) -> Document:
        """Ask the resource's service.

        Raises:
            MissingDocumentError: the service has no such document.
            EndorsementsUnavailableError: no usable answer; the hint says what to do.
        """
        url = self.endpoints.url(resource)
        answer = self._patiently(resource, url)
        try:
            return read_document(resource, answer.body, issuers=_issuers(resource, answer), now=now)
        except ValueError as error:
            raise _unusable(url, str(error)) from None

    def _patiently(self, resource: Resource, url: str) -> Answer:
        wait_s, trouble = self.patience.first_wait_s, ""
        for attempt in range(self.patience.attempts):
            if attempt:
                self.sleep(wait_s)
                wait_s = min(2 * wait_s, self.patience.longest_wait_s)
            try:
                answer = self.send(self._asked(resource, url))
            except OSError as error:
                trouble = f"no answer ({type(error).__name__})"
                continue
            except ValueError as error:
                raise _unusable(url, str(error)) from None
            if answer.status not in _PASSING:
                return _accepted(url, answer)
            trouble = f"status {answer.status}"
            wait_s = max(wait_s, self._asked_wait_s(url, answer))
        raise _unavailable(url, f"{trouble}, {self.patience.attempts} times")

    def _asked(self, resource: Resource, url: str) -> Exchange:
        return Exchange(
            url=url,
            post=resource.post,
            media_type=_OCSP_MEDIA_TYPE if resource.kind is Kind.OCSP else "",
            ca_file=self.endpoints.intel_ca_file if resource.service is Service.INTEL_PCS else None,
            timeout_s=self.patience.timeout_s,
            max_bytes=MAX_DOCUMENT_BYTES,
        )

    def _asked_wait_s(self, url: str, answer: Answer) -> float:
        """`Retry-After` in seconds; AMD's KDS gives each address a few requests per minute and says when again."""
        text = answer.headers.get("retry-after", "")
        asked_s = float(text) if text.isascii() and text.isdigit() and len(text) <= len("86400") else 0.0
        if asked_s > self.patience.longest_wait_s:
            raise EndorsementsUnavailableError(
                f"{url}: status {answer.status}, and to be asked again after {asked_s:.0f} s",
                hint=f"wait {asked_s:.0f} s; a cache folder, a mirror or a bundle spares such questions",
            )
        return asked_s


def _accepted(url: str, answer: Answer) -> Answer:
    if answer.status == _OK:
        return answer
    if answer.status == _NOT_FOUND:
        raise MissingDocumentError(
            f"{url}: the service has no such document (status 404)",
            hint="is it the right endpoint? if so, its vendor does not know this hardware or its TCB",
        )
    raise _unusable(url, f"status {answer.status}")


def _issuers(resource: Resource, answer: Answer) -> bytes:
    """Intel sends the signers' chain as URL-encoded PEM in a header (PCS API v4); a `+` there is a `+`."""
    if not resource.issuer_header:
        return b""
    chain = unquote_to_bytes(answer.headers.get(resource.issuer_header.lower(), ""))
    if not chain:
        raise ValueError(f"the answer lacks the header {resource.issuer_header}")
    return chain


def _unavailable(url: str, what: str) -> EndorsementsUnavailableError:
    hint = (
        "check the network and the endpoint; a mirror (--kds, --pccs) or a bundle (--endorsements FILE) goes around it"
    )
    return EndorsementsUnavailableError(f"{url}: {what}", hint=hint)


def _unusable(url: str, what: str) -> EndorsementsUnavailableError:
    hint = "is this the vendor's service or a mirror of it, and nothing in between that answers instead?"
    return EndorsementsUnavailableError(f"{url}: {what}", hint=hint)
