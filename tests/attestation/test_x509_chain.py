"""Chains of certificates: each link judged for itself, and no certificate in another encoding than its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from fakes.key_usage import key_usage

from blindai.attestation.evidence import Outcome
from blindai.attestation.roots import PinnedRoot
from blindai.attestation.x509_chain import (
    MAX_CERTIFICATES,
    PURPOSES,
    common_name,
    is_issued_by,
    is_valid_at,
    judge_chain,
    may_sign_crls,
    may_sign_data,
    read_certificate,
    read_pem_chain,
    utc_text,
)
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "middle", "leaf", "other")}


def certificate(  # noqa: PLR0913  # everything about a certificate can be another
    subject: str,
    issuer: str,
    *,
    is_ca: bool | None = True,
    path_length: int | None = None,
    signs: bool | None = None,
    lifetime: tuple[datetime, datetime] = (BEGIN, END),
    signer: str = "",
    public_key: Any = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key or KEYS[subject].public_key())
        .serial_number(7)
        .not_valid_before(lifetime[0])
        .not_valid_after(lifetime[1])
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    if signs is not None:
        builder = builder.add_extension(key_usage("key_cert_sign") if signs else key_usage(), critical=True)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(KEYS[signer or issuer], hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


ROOT = certificate("root", "root")
MIDDLE = certificate("middle", "root")
LEAF = certificate("leaf", "middle", is_ca=None)


def pinned(root: x509.Certificate = ROOT, name: str = "ours") -> PinnedRoot:
    return PinnedRoot(name=name, sha256=root.fingerprint(hashes.SHA256()), source="this test")


def outcomes(
    chain: Sequence[x509.Certificate], *, now: float = NOW, roots: Sequence[PinnedRoot] = (pinned(),)
) -> dict[str, str]:
    """What was found, by the codes that failed."""
    findings = list(judge_chain(chain, roots, tee="t", now=now))
    assert [finding.code for finding in findings] == ["t.chain_root", "t.chain", "t.chain_validity"]
    return {finding.code: finding.found for finding in findings if finding.outcome is Outcome.FAILED}


def test_a_good_chain_passes() -> None:
    assert outcomes([LEAF, MIDDLE, ROOT]) == {}
    assert outcomes([ROOT]) == {}
    assert outcomes([certificate("leaf", "root", is_ca=None), ROOT]) == {}
    found = [finding.found for finding in judge_chain([LEAF, MIDDLE, ROOT], [pinned()], tee="t", now=NOW, code="c")]
    assert found == ["ours", "3 certificates, each signed by the next", "all of them valid"]


def test_any_of_the_pinned_roots_will_do_and_no_other() -> None:
    other = pinned(MIDDLE, "another")
    assert outcomes([LEAF, MIDDLE, ROOT], roots=(other, pinned())) == {}
    assert outcomes([LEAF, MIDDLE, ROOT], roots=(other,)) == {"t.chain_root": "a certificate that is not pinned"}
    # A certificate that is pinned somewhere else in the chain is no root of it.
    assert "t.chain_root" in outcomes([LEAF, MIDDLE], roots=(pinned(LEAF),))
    (finding, *_) = judge_chain([LEAF], [other, pinned()], tee="t", now=NOW)
    assert finding.expected == "another or ours"


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([certificate("leaf", "middle", signer="other"), MIDDLE, ROOT], "certificate 0 (leaf) is not signed"),
        ([LEAF, certificate("middle", "root", signer="other"), ROOT], "certificate 1 (middle) is not signed"),
        ([LEAF, ROOT], "certificate 0 (leaf) is not signed"),
        ([LEAF, certificate("middle", "root", is_ca=False), ROOT], "certificate 1 (middle) is no CA for 0"),
        ([LEAF, certificate("middle", "root", is_ca=None), ROOT], "certificate 1 (middle) is no CA for 0"),
        ([LEAF, certificate("middle", "root", signs=False), ROOT], "certificate 1 (middle) is no CA for 0"),
        ([LEAF, MIDDLE, certificate("root", "root", path_length=0)], "certificate 2 (root) is no CA for 1"),
        ([LEAF, MIDDLE, certificate("root", "root", is_ca=False)], "certificate 2 (root) is no CA for 1"),
        ([certificate("root", "root", signer="other")], "certificate 0 (root) is not signed"),
    ],
)
def test_each_broken_link_is_named(chain: list[x509.Certificate], words: str) -> None:
    assert outcomes(chain, roots=(pinned(chain[-1]),))["t.chain"].startswith(words)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
PURPOSE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
NAMES = x509.NameConstraints(permitted_subtrees=[x509.DNSName("ours.test")], excluded_subtrees=None)
POLICY = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])


@pytest.mark.parametrize("extension", [UNKNOWN, PURPOSE, NAMES, POLICY], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_critical_extension_that_nobody_judges_is_refused(depth: int, extension: x509.ExtensionType) -> None:
    who = ("leaf", "middle", "root")[depth]
    for is_critical in (False, True):
        changed = certificate(
            who, ("middle", "root", "root")[depth], is_ca=depth > 0 or None, extensions=[(extension, is_critical)]
        )
        chain = [changed if at == depth else one for at, one in enumerate((LEAF, MIDDLE, ROOT))]
        found = outcomes(chain, roots=(pinned(chain[-1]),))
        words = f"certificate {depth} ({who}) has a critical extension that is not known: {extension.oid.dotted_string}"
        assert found == ({"t.chain": words} if is_critical else {})


def test_names_may_be_critical_and_what_the_caller_judges_of_the_leaf() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("ours.test")])
    assert outcomes([certificate("leaf", "middle", extensions=[(names, True)]), MIDDLE, ROOT]) == {}
    leaf = certificate("leaf", "middle", is_ca=None, extensions=[(PURPOSE, True)])
    middle = certificate("middle", "root", extensions=[(PURPOSE, True)])

    def broken(chain: Sequence[x509.Certificate]) -> bool:
        _, link, _ = judge_chain(chain, [pinned()], tee="t", now=NOW, judged_of_leaf=PURPOSES)
        return link.outcome is Outcome.FAILED

    assert not broken([leaf, MIDDLE, ROOT])
    assert broken([LEAF, middle, ROOT])


def usage(*uses: str) -> tuple[x509.ExtensionType, bool]:
    return key_usage(*uses), True


def purposes(*named: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(named), False


OCSP, ANY = ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@pytest.mark.parametrize(
    ("may", "is_ca", "extensions"),
    [
        (True, None, []),
        (True, False, [usage("digital_signature")]),
        (False, True, [usage("digital_signature", "key_cert_sign")]),
        (False, False, [usage("key_encipherment", "content_commitment")]),
        (False, False, [usage("digital_signature"), purposes(OCSP)]),
        (True, False, [usage("digital_signature"), purposes(OCSP, ANY)]),
        (False, False, [usage("key_agreement"), purposes(ANY)]),
    ],
)
def test_who_may_sign_data(*, may: bool, is_ca: bool | None, extensions: list[tuple[x509.ExtensionType, bool]]) -> None:
    assert may_sign_data(certificate("leaf", "middle", is_ca=is_ca, extensions=extensions)) is may


def test_who_may_sign_for_a_purpose() -> None:
    responder = certificate("leaf", "middle", is_ca=False, extensions=[purposes(OCSP)])
    assert may_sign_data(responder, frozenset({OCSP}))
    assert not may_sign_data(responder, frozenset({ExtendedKeyUsageOID.CODE_SIGNING}))


def test_a_ca_whose_key_usage_leaves_out_crls_signs_none() -> None:
    assert may_sign_crls(MIDDLE)
    assert may_sign_crls(certificate("middle", "root", extensions=[usage("crl_sign")]))
    assert not may_sign_crls(certificate("middle", "root", extensions=[usage("key_cert_sign")]))


def test_what_a_ca_may_have_below_it_is_counted_without_the_leaf() -> None:
    for length, signs in ((0, None), (1, True)):
        middle = certificate("middle", "root", path_length=length, signs=signs)
        root = certificate("root", "root", path_length=1)
        assert outcomes([LEAF, middle, root], roots=(pinned(root),)) == {}


def test_every_certificate_must_be_valid_now() -> None:
    for at, now in (("2026-01-01T00:00:00Z", BEGIN), ("2027-01-01T00:00:00Z", END)):
        assert outcomes([LEAF, MIDDLE, ROOT], now=now.timestamp()) == {}
        assert utc_text(now.timestamp()) == at
    lifetime = "valid from 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z"
    for outside in (BEGIN.timestamp() - 1, END.timestamp() + 1):
        assert outcomes([LEAF, MIDDLE, ROOT], now=outside) == {"t.chain_validity": f"leaf, {lifetime}"}
    old = certificate("root", "root", lifetime=(BEGIN - timedelta(days=9), BEGIN))
    assert outcomes([LEAF, MIDDLE, old], roots=(pinned(old),))["t.chain_validity"].startswith("root, valid from 2025")


def test_times_are_compared_to_the_second() -> None:
    assert is_valid_at(LEAF, BEGIN.timestamp())
    assert is_valid_at(LEAF, END.timestamp())
    assert not is_valid_at(LEAF, BEGIN.timestamp() - 0.5)
    assert not is_valid_at(LEAF, END.timestamp() + 0.5)


def test_a_key_that_cannot_sign_has_signed_nothing() -> None:
    agreeing = certificate("middle", "root", public_key=X25519PrivateKey.generate().public_key())
    assert not is_issued_by(LEAF, agreeing)
    assert is_issued_by(LEAF, MIDDLE)


def test_a_name_without_a_common_name_is_said_to_have_none() -> None:
    unnamed = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(_name("root"))
    unnamed = unnamed.public_key(KEYS["leaf"].public_key()).serial_number(1)
    made = unnamed.not_valid_before(BEGIN).not_valid_after(END).sign(KEYS["root"], hashes.SHA256())
    assert common_name(made) == "without a common name"


def test_the_first_of_several_common_names_is_told() -> None:
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in ("first", "second")]
    builder = x509.CertificateBuilder(_name("root"), x509.Name(names), KEYS["leaf"].public_key(), 1, BEGIN, END)
    assert common_name(builder.sign(KEYS["root"], hashes.SHA256())) == "first"


def read(der: bytes) -> x509.Certificate:
    return read_certificate(der, tee="t", what="leaf")


def test_one_certificate_is_read_from_exactly_its_der() -> None:
    der = LEAF.public_bytes(Encoding.DER)
    assert read(der) == LEAF
    for wrong in (b"", der[:-1], der + b"\0", LEAF.public_bytes(Encoding.PEM), b"\x30\x80" + der):
        with pytest.raises(MalformedEvidenceError, match="a leaf in DER") as refusal:
            read(wrong)
        assert (refusal.value.finding_code, refusal.value.tee) == ("t.certificate_format", "t")


def test_a_signature_with_unused_bits_is_another_encoding() -> None:
    made = (certificate("leaf", "middle", is_ca=None) for _ in range(100))
    even = next(one for one in made if not one.signature[-1] & 1)  # its last bit may be called unused
    der = even.public_bytes(Encoding.DER)
    at = der.rindex(b"\0" + even.signature)
    assert read(der) == even
    with pytest.raises(MalformedEvidenceError, match="another encoding of one"):
        read(der[:at] + b"\1" + der[at + 1 :])


def test_a_library_that_reads_more_loosely_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    der = LEAF.public_bytes(Encoding.DER)
    strict = x509.load_der_x509_certificate
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda data: strict(data[: len(der)]))
    assert read(der) == LEAF
    with pytest.raises(MalformedEvidenceError, match="another encoding of one"):
        read(der + b"\0")


def test_a_chain_is_read_in_its_order() -> None:
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in (LEAF, MIDDLE, ROOT))
    assert read_pem_chain(pem, tee="t", what="a chain") == (LEAF, MIDDLE, ROOT)
    assert read_pem_chain(LEAF.public_bytes(Encoding.PEM), tee="t", what="a chain") == (LEAF,)
    with pytest.raises(MalformedEvidenceError, match="1 to 8 certificates as a chain, found 0"):
        read_pem_chain(b"", tee="t", what="a chain")
    most = LEAF.public_bytes(Encoding.PEM) * MAX_CERTIFICATES
    assert len(read_pem_chain(most, tee="t", what="a chain")) == 8
    for wrong in (b"", b"no PEM", most + LEAF.public_bytes(Encoding.PEM), pem.replace(b"MII", b"!!!")):
        with pytest.raises(MalformedEvidenceError) as refusal:
            read_pem_chain(wrong, tee="t", what="a chain")
        assert refusal.value.finding_code == "t.certificate_format"
