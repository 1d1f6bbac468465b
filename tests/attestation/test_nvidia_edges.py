"""NVIDIA's reports and RIMs at their limits: what just fits is read, and what is just too much is refused for that."""

from __future__ import annotations

import pytest
from fakes import nvidia
from fakes.nvidia import HOPPER, SWID, opaque_data

from blindai.attestation.nvidia.report import parse
from blindai.attestation.nvidia.rim import SealedRim, load_xml_tools, read_content, read_rim, signed_content
from blindai.errors import MalformedEvidenceError

TOOLS = load_xml_tools()
CONTENT = nvidia.rim_content(resources=nvidia.golden((1,)))


def refused(raw: bytes) -> str:
    with pytest.raises(MalformedEvidenceError) as refusal:
        parse(raw)
    return str(refusal.value)


def report_of_size(size: int) -> bytes:
    """With an opaque field that nobody knows."""
    room = size - len(nvidia.report(opaque=opaque_data({**HOPPER, 99: b""})))
    return nvidia.report(opaque=opaque_data({**HOPPER, 99: bytes(room)}))


def test_a_report_has_at_most_8192_bytes() -> None:
    assert parse(report_of_size(8192)).nonce == nvidia.NONCE
    assert "a report of at most 8192 bytes, found 8193" in refused(report_of_size(8193))


def test_a_report_that_ends_early_is_refused_for_that() -> None:
    assert "96 more bytes of the report, found 95" in refused(nvidia.report()[:-1])


def test_the_last_slot_and_the_last_type_of_a_value_are_read() -> None:
    assert parse(nvidia.report(slot=7, response=b"\x11\x60\0\x07")).nonce == nvidia.NONCE
    block = nvidia.block(1, bytes(48), value_type=4)
    assert parse(nvidia.report(record=block, count=1)).measurements == (bytes(48),)


@pytest.mark.parametrize(("flag", "mode"), [(0, "spt"), (1, "mpt"), (2, "ppcie")])
def test_a_flag_is_not_contradicted_by_silence(flag: int, mode: str) -> None:
    fields = {kind: value for kind, value in HOPPER.items() if kind != 21} | {36: bytes([flag, 0])}
    assert parse(nvidia.report(opaque=opaque_data(fields))).device.mode == mode


def test_only_zeros_are_taken_off_a_chips_name() -> None:
    fields = {**HOPPER, 35: b"GB10x\0\0"}
    assert parse(nvidia.report(opaque=opaque_data(fields))).device.driver_rim.startswith("NV_GPU_CC_DRIVER_GB10x_")


# --- RIMs -------------------------------------------------------------------------------------------------------------


def sealed(content: str) -> SealedRim:
    assert TOOLS is not None
    return read_rim(nvidia.signed_rim(content), TOOLS)


def is_read(content: str) -> bool:
    """Read, signed, and its measurements read too."""
    assert TOOLS is not None
    return bool(read_content(signed_content(sealed(content), TOOLS)).golden)


def refused_rim(content: str) -> str:
    with pytest.raises(MalformedEvidenceError) as refusal:
        sealed(content)
    return str(refusal.value)


def with_attributes(form: str, count: int) -> str:
    more = "".join(form.format(number) for number in range(count))
    return CONTENT.replace("<ns0:Entity ", f"<ns0:Entity {more} ", 1)


def test_a_rim_has_at_most_128_kib() -> None:
    room = 131072 - len(nvidia.signed_rim(CONTENT))
    longest, longer = (CONTENT.replace('tagId="1', f'tagId="1{"1" * more}') for more in (room, room + 1))
    assert len(nvidia.signed_rim(longest)) == 131072
    assert is_read(longest)
    assert "a RIM of at most 131072 bytes, found 131073" in refused_rim(longer)


@pytest.mark.parametrize(
    ("form", "base", "most", "words"),
    [
        (' xmlns:n{0}="u:{0}"', nvidia.signed_rim(CONTENT).count(b"xmlns"), 32, "at most 32 namespaces, found 33"),
        (' a{0}="{0}"', 2, 96, "at most 1024 elements of 96 attributes"),
    ],
    ids=["namespaces", "attributes"],
)
def test_a_rim_has_so_many_attributes(form: str, base: int, most: int, words: str) -> None:
    assert is_read(with_attributes(form, most - base))
    assert words in refused_rim(with_attributes(form, most - base + 1))


def test_a_rim_has_at_most_1024_elements() -> None:
    assert TOOLS is not None
    base = len(list(TOOLS.etree.fromstring(nvidia.signed_rim(CONTENT)).iter()))

    def padded(count: int) -> str:
        return CONTENT.replace("<ns0:Payload>", "<ns0:Link/>" * count + "<ns0:Payload>", 1)

    assert is_read(padded(1024 - base))
    assert "at most 1024 elements" in refused_rim(padded(1024 - base + 1))


def test_a_signed_document_of_another_kind_is_no_rim() -> None:
    other = CONTENT.replace(f'xmlns="{SWID}"', 'xmlns="http://other.test/"', 1)
    assert other != CONTENT
    assert "a SoftwareIdentity" in refused_rim(other)


def refused_text(text: str) -> str:
    assert TOOLS is not None
    with pytest.raises(MalformedEvidenceError) as refusal:
        read_rim(text.encode(), TOOLS)
    return str(refusal.value)


def test_a_signer_may_stand_right_under_the_root() -> None:
    assert TOOLS is not None
    chain = (nvidia.certify("RIM signer", by="RIM root", is_ca=False), nvidia.root("RIM root"))
    assert len(read_rim(nvidia.signed_rim(CONTENT, chain=chain), TOOLS).chain) == 2


def test_a_signature_is_judged_at_its_signers_own_time() -> None:
    """Which may begin later than its issuer's; whether it has ended is the chain's question."""
    assert TOOLS is not None
    signer = nvidia.certify("RIM signer", by="RIM root", is_ca=False, begin=nvidia.NOW)
    rim = read_rim(nvidia.signed_rim(CONTENT, chain=(signer, nvidia.root("RIM root"))), TOOLS)
    assert signed_content(rim, TOOLS) is not None


def test_the_highest_index_of_a_measurement_is_254() -> None:
    resources = nvidia.golden((1,)) + nvidia.resource(254, [bytes(48)])
    assert is_read(nvidia.rim_content(resources=resources))
    with pytest.raises(MalformedEvidenceError, match="each index up to 254 once, found 255"):
        is_read(nvidia.rim_content(resources=resources.replace('"254"', '"255"')))


def test_every_part_of_a_signature_is_of_its_namespace() -> None:
    text = nvidia.signed_rim(CONTENT).decode()
    other = text.replace("<ds:X509Data>", '<o:X509Data xmlns:o="u:o">').replace("</ds:X509Data>", "</o:X509Data>")
    assert other != text
    assert "an enveloped signature over the document" in refused_text(other)


def test_a_signature_and_a_digest_are_not_empty() -> None:
    text = nvidia.signed_rim(CONTENT).decode()
    for name in ("SignatureValue", "DigestValue"):
        before, _, rest = text.partition(f"<ds:{name}>")
        _, _, after = rest.partition(f"</ds:{name}>")
        assert f"base64 in {name}" in refused_text(f"{before}<ds:{name}></ds:{name}>{after}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('index="200" active="False"', 'index="200" active="false"', "an active of True or False, found false"),
        ("<ns0:Resource ", "<ns0:File ", "measurements in the payload, found File"),
        ('alternatives="2"', 'alternatives="1"', "as many hashes as alternatives, 1, found 2"),
    ],
)
def test_signed_measurements_say_exactly_what_counts(old: str, new: str, words: str) -> None:
    changed = CONTENT.replace(old, new, 1)
    assert changed != CONTENT
    with pytest.raises(MalformedEvidenceError, match=words):
        is_read(changed)
