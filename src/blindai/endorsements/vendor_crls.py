"""What a TPM's certificates need from whoever issued them: the revocation lists that they name (RFC 5280 §4.2.1.13).

Certificates stay those that came: they are the machine's own. A list is fetched only from a host of Google's or
Microsoft's, whose roots are pinned: anybody's certificate can name any address, and is read before it is judged.
Leaves out: whether any of it is genuine, or the right one (attestation/tpm2/).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509

from blindai.attestation.tpm2.certificates import KINDS, MAX_CRLS, chain_names
from blindai.attestation.x509_chain import read_certificate
from blindai.endorsements.documents import Kind, Resource, Service
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Source

# As in the certificates of Azure's and Google Cloud's virtual TPMs, read 2026-11-25.
_HOSTS = re.compile(
    r"(www|crl)\.microsoft\.com|(primary|secondary)-cdn\.pki\.core\.windows\.net"
    r"|privateca-content-[0-9a-f-]{36}\.storage\.googleapis\.com"
)
_PATH = re.compile(r"/[!-~]*", re.ASCII)


def tpm_endorsements(item: EvidenceItem, source: Source, now: float) -> Mapping[str, bytes]:
    """The certificates as they came, and the list of each that names one.

    Raises:
        EndorsementsUnavailableError: the source lacks one, or a certificate names it at an unknown host.
        MalformedEvidenceError: a certificate is none.
    """
    given = dict(item.endorsements)
    named = {name: data for name, data in given.items() if "_crl_" not in name}
    for kind in KINDS:
        ours = [named[name] for name in chain_names(kind) if name in named]
        certificates = [read_certificate(der, tee=item.tee, what=f"{kind} chain") for der in ours]
        lists = dict.fromkeys(resource for one in certificates for resource in _lists(one))
        if len(lists) > MAX_CRLS:
            raise _unavailable(f"the {kind} chain names {len(lists)} revocation lists, and {MAX_CRLS} are known")
        for number, resource in enumerate(lists, start=1):
            named[f"{kind}_crl_{number}"] = source.get(resource, now=now).body
    return named


def _lists(certificate: x509.Certificate) -> Iterator[Resource]:
    """Where a certificate's list is; the first address that may be asked, since all have the same one."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return
    addresses = [str(name.value) for point in points for name in point.full_name or ()]
    known = next(filter(_is_known, addresses), None)
    if known is None:
        raise _unavailable(f"a certificate names its revocation list at {', '.join(addresses) or 'no address'}")
    yield Resource(service=Service.VENDOR_CRL, path=known, kind=Kind.CRL)


def _is_known(address: str) -> bool:
    try:
        url = urlsplit(address)
    except ValueError:
        return False
    is_plain = url.scheme in {"http", "https"} and not (url.query or url.fragment) and _PATH.fullmatch(url.path)
    return bool(is_plain and _HOSTS.fullmatch(url.netloc))


def _unavailable(what: str) -> EndorsementsUnavailableError:
    return EndorsementsUnavailableError(what, hint="only lists of Google's and Microsoft's virtual TPMs are fetched")
