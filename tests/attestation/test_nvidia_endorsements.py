"""RIMs and OCSP answers of a vendor of our own: wrapped signatures, hostile XML, other responders, revocation."""

from __future__ import annotations

import base64
import functools
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from fakes import nvidia
from fakes.key_usage import key_usage
from fakes.nvidia import DS, NOW, Shown
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Finding, Outcome
from blindai.attestation.ocsp import Question, answers, read_answer
from blindai.attestation.tee import nvidia_gpu
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from blindai.attestation.tee.nvidia_gpu import NvidiaGpuClaims

verify = functools.partial(
    nvidia_gpu.verify,
    device_root=nvidia.pinned(nvidia.root("Device root")),
    rim_root=nvidia.pinned(nvidia.root("RIM root")),
)
CONTENT = nvidia.rim_content(resources=nvidia.golden([1]))
RIM = nvidia.driver_rim()
TEXT = RIM.decode()


def claims_of(shown: Shown) -> NvidiaGpuClaims:
    return verify(shown.item(), NOW.timestamp(), Checks())


def with_rim(rim: bytes) -> Shown:
    return Shown(rims={"driver_rim": rim})


def refusal(shown: Shown, kind: type[RejectedEvidenceError]) -> str:
    """The code that refused it, which is the last finding's."""
    with pytest.raises(RejectedEvidenceError) as caught:
        claims_of(shown)
    assert type(caught.value) is kind
    last: Finding = caught.value.findings[-1]
    assert (last.code, last.outcome) == (caught.value.finding_code, Outcome.FAILED)
    return last.code.removeprefix("nvidia_gpu.")


def malformed_rim(rim: bytes) -> bool:
    return refusal(with_rim(rim), MalformedEvidenceError) == "rim_format"


def unauthentic_rim(rim: bytes) -> str:
    return refusal(with_rim(rim), UnauthenticEvidenceError)


def test_a_good_rim_is_read() -> None:
    (name, rim), (_, missing) = claims_of(with_rim(RIM)).rims
    assert (name, missing) == ("driver_rim", None)
    assert rim is not None
    assert (rim.product, rim.version) == ("GH100", "580.178.04")
    assert rim.golden == {index: (bytes(48), nvidia.MEASUREMENTS[index]) for index in nvidia.DRIVER_INDEXES}


BILLION_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL_ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    "rim",
    [
        b"",
        b"<",
        b"\xff" + RIM,
        b"<a/>",
        RIM + b"<a/>",
        TEXT.encode("utf-16"),
        b'<?xml version="1.0" encoding="utf-16"?>' + TEXT.encode("utf-16"),
        (BILLION_LAUGHS + TEXT).encode(),
        (EXTERNAL_ENTITY + TEXT).encode(),
        (BILLION_LAUGHS + TEXT.replace("NVIDIA Corporation", "&b;")).encode(),
        (EXTERNAL_ENTITY + TEXT.replace("<ns0:Payload>", "<ns0:Payload>&a;")).encode(),
        (TEXT.replace("<ns0:Payload>", "<ns0:Payload>&a;")).encode(),
        ("<!DOCTYPE SoftwareIdentity>" + TEXT).encode(),
        ("<!-- -->" + TEXT).encode(),
        (TEXT + "<!-- -->").encode(),
        ("<?a b?>" + TEXT).encode(),
        TEXT.replace("<ns0:Payload>", "<ns0:Payload><!-- -->").encode(),
        TEXT.replace("<ns0:Payload>", "<ns0:Payload><?a b?>").encode(),
        b"<!--" + b"x" * (128 * 1024) + b"-->" + RIM,
        ("<a>" * 300 + "</a>" * 300).encode(),
        CONTENT.encode(),
    ],
)
def test_xml_of_another_form_is_malformed(rim: bytes) -> None:
    assert malformed_rim(rim)


def _with_attributes(form: str, count: int) -> bytes:
    return TEXT.replace(
        "<ns0:Payload", "<ns0:Payload " + "".join(form % (one, one) for one in range(count)), 1
    ).encode()


@pytest.mark.parametrize(
    "rim",
    [
        _with_attributes(' xmlns:n%d="u:%d"', 4000),
        _with_attributes(' a%d="%d"', 4000),
        TEXT.replace("</ns0:Payload>", "<a/>" * 20_000 + "</ns0:Payload>").encode(),
    ],
)
def test_xml_that_takes_long_to_bring_into_canonical_form_is_malformed_at_once(rim: bytes) -> None:
    begin = time.process_time()
    assert malformed_rim(rim)
    assert time.process_time() - begin < 1


SIGNATURE = TEXT[TEXT.index("<ds:Signature ") : TEXT.index("</ds:Signature>") + len("</ds:Signature>")]
EVIL = CONTENT.replace("</SoftwareIdentity>", "")


@pytest.mark.parametrize(
    "rim",
    [
        # The signed document inside another one, with its signature inside it or beside it.
        f"{EVIL}{TEXT}</SoftwareIdentity>",
        f"{EVIL}<wrapped>{TEXT}</wrapped></SoftwareIdentity>",
        f"{EVIL}{SIGNATURE}<wrapped>{TEXT}</wrapped></SoftwareIdentity>",
        f"{EVIL}<wrapped>{TEXT.replace(SIGNATURE, '')}</wrapped><deep>{SIGNATURE}</deep></SoftwareIdentity>",
        # Two signatures; a signature inside a signature.
        TEXT.replace(SIGNATURE, SIGNATURE * 2),
        TEXT.replace("</ds:Signature>", f"<ds:Object>{TEXT}</ds:Object></ds:Signature>"),
        TEXT.replace("</ds:Signature>", "<ds:Object/></ds:Signature>"),
        TEXT.replace("<ds:SignatureValue>", "<ds:SignatureValue Id='a'>"),
        TEXT.replace("<ds:Signature ", "<ds:Signature Id='a' "),
        TEXT.replace("</ds:KeyInfo>", "<ds:KeyName>a</ds:KeyName></ds:KeyInfo>"),
        TEXT.replace("</ds:X509Data>", "</ds:X509Data><ds:X509Data/>"),
        TEXT.replace(DS, "http://www.w3.org/2000/09/another#"),
        # The reference is to a part, or to nothing; a transform more or less.
        TEXT.replace('URI=""', 'URI="#a"'),
        TEXT.replace(' URI=""', ""),
        TEXT.replace('URI=""', 'URI="file:///etc/hostname"'),
        TEXT.replace(f'<ds:Transform Algorithm="{DS}enveloped-signature"/>', ""),
        TEXT.replace("<ds:Transforms>", f'<ds:Transforms><ds:Transform Algorithm="{DS}base64"/>'),
        TEXT.replace("enveloped-signature", "base64"),
        TEXT.replace("2006/12/xml-c14n11", "2006/12/xml-c14n11#WithComments"),
        # Weaker algorithms.
        TEXT.replace("xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha256"),
        TEXT.replace("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", f"{DS}hmac-sha1"),
        TEXT.replace("http://www.w3.org/2001/04/xmldsig-more#sha384", f"{DS}sha1"),
        # Base64 with something else in it.
        TEXT.replace("<ds:DigestValue>", "<ds:DigestValue>!"),
        TEXT.replace("<ds:SignatureValue>", "<ds:SignatureValue>-"),
        TEXT.replace("<ds:X509Certificate>", "<ds:X509Certificate>="),
        TEXT.replace("</ds:DigestValue>", "=</ds:DigestValue>"),
    ],
)
def test_wrapped_and_other_signatures_are_malformed(rim: str) -> None:
    assert rim != TEXT
    assert malformed_rim(rim.encode())


def _certificates(count: int) -> tuple[x509.Certificate, ...]:
    return (nvidia.rim_chain() * 3)[:count]


@pytest.mark.parametrize("count", [1, 9])
def test_a_rim_has_a_signer_and_a_root(count: int) -> None:
    assert malformed_rim(nvidia.signed_rim(CONTENT, chain=_certificates(count)))


def test_a_certificate_of_a_rim_must_be_one() -> None:
    assert malformed_rim(TEXT.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA", 1).encode())


def test_text_between_the_parts_of_a_signature_is_refused() -> None:
    assert malformed_rim(TEXT.replace("<ds:KeyInfo>", "<ds:KeyInfo>text").encode())
    assert malformed_rim(TEXT.replace("<ds:X509Certificate>", " <ds:X509Certificate>").encode())


def test_a_rim_of_another_root_is_refused() -> None:
    *chain, _ = nvidia.rim_chain()
    own = nvidia.certify("RIM root", by="RIM root")
    assert unauthentic_rim(nvidia.signed_rim(CONTENT, chain=(*chain, own))) == "rim_chain_root"
    device_root = nvidia.root("Device root")
    assert unauthentic_rim(nvidia.signed_rim(CONTENT, chain=(*chain, device_root))) == "rim_chain_root"


def test_a_rim_with_a_broken_chain_is_refused() -> None:
    chain = nvidia.rim_chain()
    assert unauthentic_rim(nvidia.signed_rim(CONTENT, chain=(chain[0], *chain[2:]))) == "rim_chain"


def test_a_rim_of_an_outdated_signer_is_refused() -> None:
    signer = nvidia.certify("RIM signer", by="Reference values L3", is_ca=False, end=NOW - timedelta(days=1))
    rim = nvidia.signed_rim(CONTENT, chain=(signer, *nvidia.rim_chain()[1:]))
    assert unauthentic_rim(rim) == "rim_chain_validity"


@pytest.mark.parametrize(
    "changes",
    [
        {"is_ca": True},
        {"extensions": nvidia.OCSP_SIGNING},
        {"extensions": [(key_usage("key_agreement"), True)]},
    ],
)
def test_a_rim_by_a_key_for_another_use_is_refused(changes: dict[str, Any]) -> None:
    signer = nvidia.certify("RIM signer", by="Reference values L3", **{"is_ca": False, **changes})
    rim = nvidia.signed_rim(CONTENT, chain=(signer, *nvidia.rim_chain()[1:]))
    assert unauthentic_rim(rim) == "rim_signer"


def test_a_rim_by_a_key_for_signatures_is_accepted() -> None:
    signer = nvidia.certify(
        "RIM signer", by="Reference values L3", is_ca=False, extensions=[(key_usage("digital_signature"), True)]
    )
    rim = nvidia.signed_rim(CONTENT, chain=(signer, *nvidia.rim_chain()[1:]))
    assert claims_of(with_rim(rim)).can_read_rims


def _other_kind_of_signer() -> bytes:
    other = rsa.generate_private_key(65537, 2048).public_key()
    signer = nvidia.certify("RIM signer", by="Reference values L3", is_ca=False, subject_key=other)
    return nvidia.signed_rim(CONTENT, chain=(signer, *nvidia.rim_chain()[1:]))


@pytest.mark.parametrize(
    "rim",
    [
        nvidia.signed_rim(CONTENT, signer=nvidia.key("another")),
        nvidia.signed_rim(CONTENT, signer=ec.generate_private_key(ec.SECP256R1())),
        _other_kind_of_signer(),
        TEXT.replace(nvidia.MEASUREMENTS[1].hex(), bytes(48).hex()).encode(),
        TEXT.replace('active="False"', 'active="True"').encode(),
        TEXT.replace("580.178.04", "580.178.05").encode(),
        TEXT.replace("\n    <ns0:Payload>", "\n   <ns0:Payload>").encode(),
        TEXT.replace("</SoftwareIdentity>", " </SoftwareIdentity>").encode(),
    ],
)
def test_a_rim_with_another_signature_or_content_is_refused(rim: bytes) -> None:
    assert unauthentic_rim(rim) == "rim_signature"


def test_a_rim_with_another_digest_is_refused_though_it_is_signed() -> None:
    wrong = base64.b64encode(bytes(48)).decode()

    def change(text: str) -> str:
        start, end = text.index("<ds:DigestValue>") + 16, text.index("</ds:DigestValue>")
        return text[:start] + wrong + text[end:]

    assert unauthentic_rim(nvidia.signed_rim(CONTENT, change_signed_info=change)) == "rim_signature"


GOOD_RESOURCE = nvidia.resource(1, [bytes(48)])


@pytest.mark.parametrize(
    "content",
    [
        CONTENT.replace("<ns0:Payload>", "<ns0:Payload/><ns0:Payload>"),
        CONTENT.replace("<ns0:Meta ", '<ns0:Meta colloquialVersion="1" product="a"/><ns0:Meta '),
        CONTENT.replace(' product="GH100"', ""),
        CONTENT.replace('product="GH100"', 'product="../GH100"'),
        CONTENT.replace('colloquialVersion="580.178.04"', 'colloquialVersion=""'),
        nvidia.rim_content(resources=""),
        nvidia.rim_content(resources=GOOD_RESOURCE * 2),
        nvidia.rim_content(resources=nvidia.resource(255, [bytes(48)])),
        nvidia.rim_content(resources=nvidia.resource(1, [bytes(48)], active="False")),
        nvidia.rim_content(resources=nvidia.resource(1, [bytes(48)], active="true")),
        nvidia.rim_content(resources=nvidia.resource(1, [bytes(47)])),
        nvidia.rim_content(resources=nvidia.resource(1, [])),
        nvidia.rim_content(resources=nvidia.resource(1, [bytes(48)] * 65)),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace('alternatives="1"', 'alternatives="2"')),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace("ns2:Hash0", "ns2:Hash1")),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace('index="1"', 'index="01"')),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace('index="1"', 'index="9999999999"')),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace('type="Measurement"', 'type="Other"')),
        nvidia.rim_content(resources=GOOD_RESOURCE.replace("/>", "><a/></ns0:Resource>")),
        nvidia.rim_content(resources="<ns0:Other/>"),
    ],
)
def test_signed_content_of_another_form_is_malformed(content: str) -> None:
    assert malformed_rim(nvidia.signed_rim(content))


@pytest.mark.filterwarnings("ignore")  # of cryptography, about names and serial numbers that are odd
@settings(max_examples=150)
@given(start=st.integers(0, len(RIM)), junk=st.binary(max_size=30))
def test_arbitrary_bytes_in_a_rim_are_rejected_and_nothing_worse(start: int, junk: bytes) -> None:
    rim = RIM[:start] + junk + RIM[start + len(junk) :]
    try:
        claims = claims_of(with_rim(rim))
    except RejectedEvidenceError:
        return
    assert claims.rims == claims_of(with_rim(RIM)).rims  # nothing was changed, or only how base64 breaks its lines


CHAIN = nvidia.device_chain()
ROM, PROVISIONER = CHAIN[1:3]
ISSUER = "GH100 Provisioner"


def with_answer(**changes: Any) -> Shown:
    return Shown(answers=(nvidia.answer(ROM, PROVISIONER, **changes),))


def unauthentic(shown: Shown) -> str:
    return refusal(shown, UnauthenticEvidenceError)


def test_an_answer_is_about_the_certificate_that_it_names_whatever_its_own_name() -> None:
    claims = claims_of(Shown(answers=nvidia.good_answers()[2::-1]))
    assert {answer.status for answer in claims.answers} == {"good"}
    assert claims.unanswered == ()


@pytest.mark.parametrize("by_name", [True, False])
def test_an_issuer_may_answer_itself(by_name: bool) -> None:  # noqa: FBT001  # pytest's
    shown = with_answer(responder=PROVISIONER, signer=nvidia.key(ISSUER), by_name=by_name)
    assert claims_of(shown).answers[0].status == "good"


def test_an_answer_without_an_end_ends_when_it_begins() -> None:
    (answer,) = claims_of(with_answer(ends=None)).answers
    assert answer.ends == answer.begins == (NOW - timedelta(hours=1)).timestamp()


def test_a_nonce_in_an_answer_is_passed_over() -> None:
    assert claims_of(with_answer(extensions=[(x509.OCSPNonce(b"1" * 32), False)])).answers[0].status == "good"


def _responder(issuer: str = ISSUER, **changes: Any) -> x509.Certificate:
    return nvidia.responder_of(issuer, **changes)


def test_a_responder_may_say_for_what_it_is_as_nvidias_do() -> None:
    purposes = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING, x509.OCSPNoCheck.oid])
    extensions = [(purposes, True), (x509.OCSPNoCheck(), True), (key_usage("digital_signature"), True)]
    shown = with_answer(responder=_responder(extensions=extensions), signer=nvidia.key(f"Responder of {ISSUER}"))
    assert claims_of(shown).answers[0].status == "good"


@pytest.mark.parametrize(
    "changes",
    [
        {
            "responder": nvidia.certify("Stranger", by="Stranger", extensions=nvidia.OCSP_SIGNING),
            "signer": nvidia.key("Stranger"),
        },
        {"responder": _responder("GH100 Identity"), "signer": nvidia.key("Responder of GH100 Identity")},
        {"responder": _responder(extensions=())},
        {
            "responder": _responder(
                extensions=[(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
            )
        },
        {"responder": _responder(end=NOW - timedelta(days=1))},
        {
            "responder": _responder(
                extensions=[(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)]
            )
        },
        {"responder": _responder(extensions=[*nvidia.OCSP_SIGNING, (key_usage("key_agreement"), True)])},
        {"responder": _responder(extensions=[*nvidia.OCSP_SIGNING, (x509.InhibitAnyPolicy(0), True)])},
        {"responder": CHAIN[0], "signer": nvidia.key("GH100 A01 GSP FMC LF")},
    ],
)
def test_only_the_issuer_and_its_responders_may_answer(changes: dict[str, Any]) -> None:
    assert unauthentic(with_answer(**changes)) == "ocsp_responder"


def test_an_answer_with_another_signature_is_refused() -> None:
    signature = ocsp.load_der_ocsp_response(GOOD_ANSWER).signature
    changed = GOOD_ANSWER.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert unauthentic(Shown(answers=(changed,))) == "ocsp_signature"


def test_a_responder_with_another_kind_of_key_is_refused() -> None:
    signer = rsa.generate_private_key(65537, 2048)
    responder = _responder(subject_key=signer.public_key())
    assert unauthentic(with_answer(responder=responder, signer=signer)) == "ocsp_signature"


@pytest.mark.parametrize(
    "reason", [None, x509.ReasonFlags.key_compromise, x509.ReasonFlags.unspecified, x509.ReasonFlags.superseded]
)
def test_a_revoked_certificate_is_never_accepted(reason: x509.ReasonFlags | None) -> None:
    assert unauthentic(with_answer(status=ocsp.OCSPCertStatus.REVOKED, reason=reason)) == "revoked"


def test_an_outdated_answer_that_revokes_counts_all_the_same() -> None:
    times = {"begins": NOW - timedelta(days=9), "ends": NOW - timedelta(days=8)}
    assert unauthentic(with_answer(status=ocsp.OCSPCertStatus.REVOKED, **times)) == "revoked"


def test_hold_and_unknown_are_left_to_the_policy() -> None:
    hold = with_answer(status=ocsp.OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.certificate_hold)
    assert claims_of(hold).answers[0].status == "on hold"
    assert claims_of(with_answer(status=ocsp.OCSPCertStatus.UNKNOWN)).answers[0].status == "unknown"


GOOD_ANSWER = nvidia.answer(ROM, PROVISIONER)


def _with_unused_bit(answer: bytes) -> bytes:
    """The same signature, said to end one bit earlier; where it ends in a one, that is no DER at all."""
    signature = ocsp.load_der_ocsp_response(answer).signature
    return answer.replace(b"\0" + signature, b"\1" + signature)


UNSUCCESSFUL = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)


@pytest.mark.parametrize(
    "answers_shown",
    [
        (b"",),
        (b"\x30\x03",),
        (GOOD_ANSWER + b"\0",),
        (_with_unused_bit(GOOD_ANSWER),),
        (UNSUCCESSFUL.public_bytes(Encoding.DER),),
        (GOOD_ANSWER, GOOD_ANSWER),
        (nvidia.answer(CHAIN[0], ROM),),
        (nvidia.answer(ROM, CHAIN[3]),),
        (nvidia.answer(ROM, PROVISIONER, algorithm=SHA1()),),  # noqa: S303  # which must be refused
        (nvidia.answer(ROM, PROVISIONER, extensions=[(x509.OCSPNonce(b"1" * 32), True)]),),
        (
            nvidia.answer(
                ROM,
                PROVISIONER,
                extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x" * 9000), False)],
            ),
        ),
    ],
)
def test_answers_of_another_form_or_about_others_are_malformed(answers_shown: tuple[bytes, ...]) -> None:
    assert refusal(Shown(answers=answers_shown), MalformedEvidenceError) == "ocsp_format"


def test_a_responders_certificate_has_one_encoding_too() -> None:
    """Nobody signs the certificates that an answer brings along."""
    issuer = str(PROVISIONER.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    made = (nvidia.responder_of(issuer, serial=serial) for serial in range(1, 101))
    even = next(one for one in made if not one.signature[-1] & 1)  # its last bit may be called unused
    whole = nvidia.answer(ROM, PROVISIONER, responder=even)
    assert claims_of(Shown(answers=(whole,))).answers
    changed = whole.replace(b"\0" + even.signature, b"\1" + even.signature)
    assert refusal(Shown(answers=(changed,)), MalformedEvidenceError) == "ocsp_format"


def test_a_sha256_certificate_id_will_do() -> None:
    assert len(claims_of(with_answer(algorithm=SHA256())).answers) == 1


def test_an_issuer_with_another_kind_of_key_has_no_answer() -> None:
    other = nvidia.certify(ISSUER, by="GH100 Identity", subject_key=rsa.generate_private_key(65537, 2048).public_key())
    response = read_answer(GOOD_ANSWER, tee="nvidia_gpu")
    assert not answers(response, Question(certificate=ROM, issuer=other))


@pytest.mark.filterwarnings("ignore")  # of cryptography, about names and serial numbers that are odd
@settings(max_examples=150)
@given(start=st.integers(0, len(GOOD_ANSWER)), junk=st.binary(max_size=12))
def test_arbitrary_bytes_in_an_answer_are_rejected_and_nothing_worse(start: int, junk: bytes) -> None:
    der = GOOD_ANSWER[:start] + junk + GOOD_ANSWER[start + len(junk) :]
    if der != GOOD_ANSWER:
        with pytest.raises(RejectedEvidenceError):
            claims_of(Shown(answers=(der,)))


@pytest.mark.parametrize("name", ["driver_rim", "vbios_rim", "ocsp_0"])
def test_an_empty_endorsement_is_not_taken_for_one_that_is_not_there(name: str) -> None:
    with pytest.raises(MalformedEvidenceError):
        verify(Shown().item(**{name: b""}), NOW.timestamp(), Checks())
