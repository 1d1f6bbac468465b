"""NVIDIA's reference integrity manifests: which measurements a driver or VBIOS is known by, signed by NVIDIA.

A RIM is a SWID tag (ISO/IEC 19770-2:2015, TCG RIM Information Model 1.01) with an enveloped XML signature. Of XML and
XML-DSig only what NVIDIA writes is accepted: one form, one algorithm each, no document type, comment or instruction.
What is signed is taken from the bytes that were verified, never from the document that arrived.
Needs lxml and signxml, the extra `[nvidia]`; they are imported when the first RIM is read.
Leaves out: which RIM belongs to a report, and the comparison (tee/nvidia_gpu.py).
"""

from __future__ import annotations

import base64
import binascii
import functools
import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.attestation.nvidia.report import TEE
from blindai.attestation.x509_chain import MAX_CERTIFICATES, read_chain
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

MAX_RIM_BYTES = 128 * 1024
# NVIDIA's have 6, 70 and 110. Anybody can put its certificates into a document of their own, and the canonical form of
# ten thousand namespaces takes half a minute.
_MAX_NAMESPACES, _MAX_ATTRIBUTES, _MAX_ELEMENTS = 32, 96, 1024
FORMAT = f"{TEE}.rim_format"
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_C14N_11 = "http://www.w3.org/2006/12/xml-c14n11"
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
# Parent, name and attributes of each element in order: the whole document without its signature, and nothing else.
_SIGNED_INFO: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Signature", "SignedInfo", {}),
    ("SignedInfo", "CanonicalizationMethod", {"Algorithm": _C14N_11}),
    ("SignedInfo", "SignatureMethod", {"Algorithm": _ECDSA_SHA384}),
    ("SignedInfo", "Reference", {"URI": ""}),
    ("Reference", "Transforms", {}),
    ("Transforms", "Transform", {"Algorithm": _ENVELOPED}),
    ("Transforms", "Transform", {"Algorithm": _C14N_11}),
    ("Reference", "DigestMethod", {"Algorithm": _SHA384}),
    ("Reference", "DigestValue", {}),
    ("Signature", "SignatureValue", {}),
    ("Signature", "KeyInfo", {}),
    ("KeyInfo", "X509Data", {}),
)
_KEPT = 16  # RIMs: they take milliseconds, and are the same for every GPU of a machine and at every connection
_MAX_INDEX = 254
_MAX_ALTERNATIVES = 64
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_DIGEST = re.compile(r"[0-9A-Fa-f]{96}\Z")
_PRINTABLE = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class XmlTools:
    """The two libraries of the extra `[nvidia]`."""

    etree: Any
    signxml: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRim:
    """A RIM whose form is right and whose signature nobody has checked.

    Attributes:
        root: the document as an element tree.
        chain: from the signer to the root.
    """

    root: Any = field(repr=False)
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """What NVIDIA signed.

    Attributes:
        product: the chip, for example GH100.
        version: of the driver or VBIOS.
        golden: for each active index, the digests any of which is right.
    """

    product: str
    version: str
    golden: Mapping[int, tuple[bytes, ...]] = field(repr=False)


def load_xml_tools() -> XmlTools | None:
    """The two libraries, or None where the extra is not installed."""
    try:
        return XmlTools(etree=importlib.import_module("lxml.etree"), signxml=importlib.import_module("signxml"))
    except ImportError:
        return None


@functools.lru_cache(maxsize=_KEPT)
def read_rim(data: bytes, tools: XmlTools) -> SealedRim:
    """Read a RIM and the certificates in it; nothing of it is to be believed yet.

    Raises:
        MalformedEvidenceError: anything but exactly the form that NVIDIA writes.
    """
    root = _parse_xml(data, tools)
    signature = _only_child(root, f"{_DS}Signature")
    if len(list(root.iter(f"{_DS}Signature"))) != 1:
        raise _malformed("one signature, a child of the root", "another")
    return SealedRim(root=root, chain=_certificates(signature))


def _parse_xml(data: bytes, tools: XmlTools) -> Any:
    if len(data) > MAX_RIM_BYTES:
        raise _malformed(f"a RIM of at most {MAX_RIM_BYTES} bytes", f"{len(data)}")
    if data.count(b"xmlns") > _MAX_NAMESPACES:
        raise _malformed(f"at most {_MAX_NAMESPACES} namespaces", f"{data.count(b'xmlns')}")
    # Entities stay unexpanded, nothing is fetched, and the encoding is ours whatever the document claims.
    parser = tools.etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=False
    )
    try:
        root = tools.etree.fromstring(data, parser)
    except (tools.etree.XMLSyntaxError, ValueError):
        raise _malformed("XML", f"{len(data)} bytes that are none") from None
    document = root.getroottree().docinfo
    if document.internalDTD is not None:
        raise _malformed("no document type", "one")
    elements = list(root.iter())
    has_others = root.getprevious() is not None or root.getnext() is not None
    if has_others or not all(isinstance(element.tag, str) for element in elements):
        raise _malformed("elements alone", "a comment, an instruction or an entity")
    if len(elements) > _MAX_ELEMENTS or any(len(element.attrib) > _MAX_ATTRIBUTES for element in elements):
        raise _malformed(f"at most {_MAX_ELEMENTS} elements of {_MAX_ATTRIBUTES} attributes", "more")
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise _malformed("a SoftwareIdentity", root.tag)
    return root


def _only_child(parent: Any, tag: str) -> Any:
    found = parent.findall(tag)
    if len(found) != 1:
        raise _malformed(f"one {_local(tag)}", f"{len(found)}")
    return found[0]


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _certificates(signature: Any) -> tuple[x509.Certificate, ...]:
    """The chain in the signature, whose form must be exactly `_SIGNED_INFO` and then certificates."""
    elements = list(signature.iter())[1:]
    shape = [(_local(one.getparent().tag), _local(one.tag), dict(one.attrib)) for one in elements]
    certificates = elements[len(_SIGNED_INFO) :]
    expected = [*_SIGNED_INFO, *[("X509Data", "X509Certificate", {})] * len(certificates)]
    words = [*(one.tail for one in elements), *(one.text for one in signature.iter() if len(one))]
    is_ours = all(one.tag.startswith(_DS) for one in elements)
    if signature.attrib or shape != expected or any(words) or not is_ours:
        raise _malformed("an enveloped signature over the document (ECDSA, SHA-384, C14N 1.1)", "another form")
    if not 2 <= len(certificates) <= MAX_CERTIFICATES:  # noqa: PLR2004  # a signer and a root
        raise _malformed(f"2 to {MAX_CERTIFICATES} certificates", f"{len(certificates)}")
    for one in elements[: len(_SIGNED_INFO)]:
        if one.tag in {f"{_DS}DigestValue", f"{_DS}SignatureValue"}:
            _base64(one)
    ders = [_base64(one) for one in certificates]
    try:
        return read_chain(ders, tee=TEE, what="certificate of a RIM", own=0)
    except MalformedEvidenceError:
        raise _malformed("certificates in the signature", "bytes that are none") from None


def _base64(element: Any) -> bytes:
    """The element's text decoded, which must be the only encoding of it but for its lines."""
    text = "".join((element.text or "").split()).encode()
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if not data or base64.b64encode(data) != text:
        raise _malformed(f"base64 in {_local(element.tag)}", f"{len(text)} characters that are none")
    return data


@functools.lru_cache(maxsize=_KEPT)
def signed_content(sealed: SealedRim, tools: XmlTools) -> Any:
    """What the chain's first certificate signed, as an element tree, or None if its signature does not verify.

    The certificate's own time is judged with its chain, and not here.
    """
    signxml = tools.signxml
    config = signxml.SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset([signxml.SignatureMethod.ECDSA_SHA384]),
        digest_algorithms=frozenset([signxml.DigestAlgorithm.SHA384]),
        verification_time=sealed.chain[0].not_valid_before_utc,
    )
    try:
        return signxml.XMLVerifier().verify(sealed.root, x509_cert=sealed.chain[0], expect_config=config).signed_xml
    except (signxml.exceptions.SignXMLException, tools.etree.LxmlError, ValueError, TypeError):
        return None


@functools.lru_cache(maxsize=_KEPT)
def read_content(signed: Any) -> Rim:
    """The measurements in what was signed.

    Raises:
        MalformedEvidenceError: not a RIM, although signed.
    """
    meta = _only_child(signed, f"{_SWID}Meta")
    return Rim(
        product=_attribute(meta, "product", _PRINTABLE),
        version=_attribute(meta, "colloquialVersion", _PRINTABLE),
        golden=_golden(_only_child(signed, f"{_SWID}Payload")),
    )


def _golden(payload: Any) -> dict[int, tuple[bytes, ...]]:
    golden: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload:
        if resource.tag != f"{_SWID}Resource" or resource.get("type") != "Measurement" or len(resource):
            raise _malformed("measurements in the payload", _local(resource.tag))
        index = int(_attribute(resource, "index", _NUMBER))
        if index in seen or index > _MAX_INDEX:
            raise _malformed(f"each index up to {_MAX_INDEX} once", f"{index}")
        seen.add(index)
        if _is_active(resource):
            golden[index] = _digests(resource)
    if not golden:
        raise _malformed("an active measurement", "none")
    return golden


def _is_active(resource: Any) -> bool:
    active = resource.get("active")
    if active not in {"True", "False"}:
        raise _malformed("an active of True or False", str(active))
    return bool(active == "True")


def _digests(resource: Any) -> tuple[bytes, ...]:
    """`Hash0` and on, as many as `alternatives` says and no more."""
    count = int(_attribute(resource, "alternatives", _NUMBER))
    hashes = [name for name in resource.attrib if name.startswith(_HASH)]
    if not 1 <= count <= _MAX_ALTERNATIVES or len(hashes) != count:
        raise _malformed(f"as many hashes as alternatives, {count}", f"{len(hashes)}")
    return tuple(bytes.fromhex(_attribute(resource, f"{_HASH}{number}", _DIGEST)) for number in range(count))


def _attribute(element: Any, name: str, form: re.Pattern[str]) -> str:
    value = element.get(name, "")
    if not form.match(value):
        raise _malformed(f"{_local(name)} of {_local(element.tag)} as {form.pattern}", repr(value[:80]))
    return str(value)


def _malformed(expected: str, found: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"expected {expected}, found {found}", finding_code=FORMAT, tee=TEE)
