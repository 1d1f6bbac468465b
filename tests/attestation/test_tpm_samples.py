"""TPM evidence of real machines and of swtpm: every sample is judged as independent parsing judged it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import COLLATERAL, meta_of, needs_evidence, sample_folders
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from fakes.machines import strict_policy_of

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy_file import open_policy
from blindai.attestation.roots import TPM_ROOTS, PinnedRoot
from blindai.attestation.tee.tpm import TpmClaims, check, parse, parse_policy, verify
from blindai.attestation.tpm2.boot_events import BootClaims, read_boot
from blindai.attestation.tpm2.certificates import VendorChain, judge_vendor_chain
from blindai.attestation.tpm2.event_log import parse_event_log, replay
from blindai.attestation.tpm2.keys import Scheme, TpmSignature, parse_public, parse_signature
from blindai.attestation.tpm2.policy import TpmPolicy
from blindai.attestation.tpm2.quote import Quote, judge_quote, parse_quote
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError
from blindai.evidence_files.tpm import read_folder, read_quotes
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.attestation.evidence import EvidenceItem, Finding

NOW = 1_796_000_000.0  # 2026-11-30: a TPM's quote has no time of its own, and swtpm's certificates are of 2026-11-23
LATER = 1_790_000_000.0  # 2026-09-21: what the certificates of clouds are judged at
REFERENCE_VALUES = ("pcrs", "boot_applications", "kernel", "initrd", "command_line", "boot_files")
POLICY = parse_policy(
    open_policy(
        "\n".join(f'{name} = {{ skip = "given" }}' for name in REFERENCE_VALUES), source="samples"
    ).with_defaults(preset_table("strict", "tpm") or {})
)
# What a sample's conclusion means in our codes, of the findings under `strict`.
PHRASES = {
    r"No AK certificate inside": {"ak_certified"},
    r"EK certificate chains to the local swtpm CA": {"ak_certified", "ak_root"},
}
# Not in the samples' text: swtpm's log was made by hand, for 11 PCRs, and names no firmware.
SHORT_LOG = {"pcr_selection", "secure_boot", "firmware_closed", "debug_arguments"}
QUOTE_FIELDS: dict[str, Callable[[Quote], object]] = {
    "qualified_signer": lambda quote: quote.qualified_signer.hex(),
    "extra": lambda quote: quote.extra_data.hex(),
    "clock": lambda quote: quote.clock,
    "reset_count": lambda quote: quote.reset_count,
    "restart_count": lambda quote: quote.restart_count,
    "safe": lambda quote: int(quote.safe),
    "fw": lambda quote: hex(quote.firmware_version),
    "pcr_select": lambda quote: [[quote.bank, list(quote.selection)]],
    "pcr_digest": lambda quote: quote.pcr_digest.hex(),
    "type": lambda quote: "0x" + quote.signed[4:6].hex(),
}


def quotes() -> list[tuple[EvidenceItem, dict[str, Any], dict[str, Any]]]:
    """Every quote whose key's public area is there: the item, what is said of the quote, and the sample's page."""
    found = []
    for folder in sample_folders("tpm"):
        parsed = meta_of(folder).get("parsed", {})
        for name, item in read_quotes(folder).items():
            if parse(item.evidence).ak_public:
                said = (
                    parsed["quotes"] if "quotes" in parsed else {kind: parsed[kind]["quote"] for kind in ("rsa", "ecc")}
                )
                found.append((item, said[name.removeprefix("_")], meta_of(folder)))
    return found


def roots_of(item: EvidenceItem) -> tuple[PinnedRoot, ...]:
    """The pinned roots, and a local CA for the samples that have one: nothing but a test names it."""
    root = dict(item.endorsements).get("ek_root")
    return (
        (*TPM_ROOTS, PinnedRoot(name="a local CA", sha256=hashlib.sha256(root).digest(), source=""))
        if root
        else TPM_ROOTS
    )


def one_genuine() -> tuple[EvidenceItem, float]:
    """A cloud's quote of its SHA-256 bank, with the event log: the item and a time."""
    items = [
        item for item, said, meta in quotes() if "events" in meta["parsed"] and said["pcr_select"][0][0] == "sha256"
    ]
    return items[0], NOW


def event_log_bytes(item: EvidenceItem) -> range:
    """Where the event log stands: what is changed there is refused, or proves no more than before."""
    return range(item.evidence.index(parse(item.evidence).event_log), len(item.evidence))


def require_quote(quote: Quote, said: dict[str, Any]) -> int:
    for name, found in QUOTE_FIELDS.items():
        assert found(quote) == said[name], name
    assert set(said) == set(QUOTE_FIELDS)
    return len(said)


def expected_failures(claims: TpmClaims, meta: dict[str, Any]) -> set[str]:
    codes = {code for phrase, named in PHRASES.items() if re.search(phrase, meta["conclusion"]) for code in named}
    codes |= set() if "events" in meta["parsed"] else SHORT_LOG
    return codes | (set() if claims.quote.bank == "sha256" else {"bank"})


def failed(findings: Iterator[Finding]) -> set[str]:
    return {finding.code.removeprefix("tpm.") for finding in findings if finding.outcome is Outcome.FAILED}


@needs_evidence
def test_every_quote_verifies_and_is_judged_as_its_page_says(tell: Callable[[str], None]) -> None:
    runs, refused, fields = 0, 0, 0
    for item, said, meta in quotes():
        fields += require_quote(parse_quote(parse(item.evidence).quote, tee="tpm"), said)
        if said["pcr_select"][0][0] == "sha1":
            with pytest.raises(UnauthenticEvidenceError) as refusal:
                verify(item, NOW, Checks())
            assert refusal.value.finding_code == "tpm.digest_algorithm"
            refused += 1
            continue
        claims = verify(item, NOW, Checks(), roots=roots_of(item))
        assert failed(check(claims, POLICY)) == expected_failures(claims, meta)
        assert claims.bound.hex() == said["extra"]
        runs += 1
    assert runs > 0
    assert refused > 0
    tell(f"{runs} real TPM quotes verified, {refused} of SHA-1 refused, {fields} fields equal to meta.json")


@needs_evidence
def test_every_key_is_parsed_as_its_page_says(tell: Callable[[str], None]) -> None:
    keys = 0
    for folder in sample_folders("tpm"):
        for path in sorted(folder.glob("ak*.tpmt_public")):
            parsed = meta_of(folder)["parsed"]
            kind = path.name.removeprefix("ak").removesuffix(".tpmt_public").strip("_")
            said = parsed[kind]["ak"] if kind else parsed["ak"]
            ak = parse_public(path.read_bytes(), tee="tpm")
            assert ak.name.hex() == said["name"]
            names = {"fixedtpm": "fixedTPM", "fixedparent": "fixedParent", "sensorigin": "sensitiveDataOrigin"}
            names |= {"userwithauth": "userWithAuth", "restricted": "restricted", "decrypt": "decrypt", "sign": "sign"}
            assert {name: int(ours in ak.attributes) for name, ours in names.items()} == {
                name: said[name] for name in names
            }
            assert ak.scheme == {"0x14": Scheme(name="rsassa", digest="sha256"),
                                 "0x18": Scheme(name="ecdsa", digest="sha256")}[said["scheme"][0]]  # fmt: skip
            keys += 1
    assert keys > 0
    tell(f"{keys} attestation keys equal to meta.json")


def logs() -> list[tuple[bytes, dict[str, Any]]]:
    return [
        ((folder / "eventlog.bin").read_bytes(), meta_of(folder).get("parsed", {}))
        for folder in sample_folders("tpm")
        if (folder / "eventlog.bin").is_file()
    ]


@needs_evidence
def test_every_event_log_replays_as_its_page_says(tell: Callable[[str], None]) -> None:
    events, banks = 0, 0
    for raw, said in logs():
        log = parse_event_log(raw, tee="tpm")
        assert len(log.events) == said.get("events", len(log.events))
        for bank, values in said.get("replayed", {}).items():
            assert {str(pcr): value.hex() for pcr, value in replay(log, bank).items()} == values
            banks += 1
        events += len(log.events)
    assert banks > 0
    tell(f"{len(logs())} event logs, {events} events, {banks} banks replayed equal to meta.json")


def boots() -> list[BootClaims]:
    parsed = [parse_event_log(raw, tee="tpm") for raw, said in logs() if "events" in said]
    return [read_boot(log, bank="sha256", quoted=range(24)) for log in parsed]


@needs_evidence
def test_real_logs_mean_something() -> None:
    for boot in boots():
        assert boot.secure_boot is not None
        assert [name for name, _ in boot.variables] == ["PK", "KEK", "db", "dbx"]
        assert boot.unclosed == ()
        assert len(boot.kernels) == 1
        assert len(boot.command_lines) == 1
        assert set(boot.kernels) <= set(boot.files)
        assert boot.command_lines[0].text.startswith("/")
        assert boot.applications
    flags = {flag for boot in boots() for flag in boot.firmware_flags}
    assert flags == {"DMA Protection Disabled"}
    assert {boot.memory_encryption for boot in boots()} == {"", "none", "AMD SEV", "AMD SEV-SNP"}


@needs_evidence
def test_a_debug_image_of_confidential_gke_is_seen() -> None:
    findings = []
    for raw, said in logs():
        if "events" in said:
            log = parse_event_log(raw, tee="tpm")
            boot = read_boot(log, bank="sha256", quoted=range(24))
            findings += [
                finding for line in boot.command_lines for finding in re.findall(r"\S*hardened=\S*", line.text)
            ]
    assert set(findings) == {"confidential-gke.hardened=false"}


@needs_evidence
def test_every_bare_quote_of_clouds_verifies_by_the_key_beside_it(tell: Callable[[str], None]) -> None:
    """A key without its public area, and signatures without their TPM structure, as other TEEs show them."""
    runs = 0
    for folder in sample_folders("tpm"):
        if not list(folder.glob("*.tpmt_public")) and (folder / "ak_pub.der").is_file():
            key: Any = load_der_public_key((folder / "ak_pub.der").read_bytes())
            quote = parse_quote((folder / "quote.msg").read_bytes(), tee="tpm")
            require_quote(quote, meta_of(folder)["parsed"])
            signature = parse_signature((folder / "quote.tpmt_signature").read_bytes(), tee="tpm")
            assert not failed(judge_quote(quote, signature, key, pcr_values(folder), tee="tpm"))
            with pytest.raises(MalformedEvidenceError) as refusal:
                verify(read_folder(folder)[0], NOW, Checks())
            assert refusal.value.finding_code == "tpm.ak_format"
            runs += 1
    for folder in [*sample_folders("azure-snp-vtpm"), *sample_folders("azure-tdx-vtpm")]:
        if (folder / "ak_cert.der").is_file():
            key = x509.load_der_x509_certificate((folder / "ak_cert.der").read_bytes()).public_key()
            quote = parse_quote((folder / "tpm_quote.msg").read_bytes(), tee="tpm")
            require_quote(quote, meta_of(folder)["parsed"]["tpm_quote"])
            value = (folder / "tpm_quote.sig").read_bytes()
            signature = TpmSignature(scheme=Scheme(name="rsassa", digest="sha256"), value=value)
            assert not failed(judge_quote(quote, signature, key, pcr_values(folder), tee="tpm"))
            runs += 1
    assert runs > 0
    tell(f"{runs} bare quotes verified")


def pcr_values(folder: Path) -> bytes:
    return b"".join(bytes.fromhex(value) for value in json.loads((folder / "pcrs_sha256.json").read_text("utf-8")))


def certificates(*paths: Path) -> list[x509.Certificate]:
    loaded = []
    for path in paths:
        data = path.read_bytes()
        loaded += (
            x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
        )
    return loaded


def cloud_chains() -> list[list[x509.Certificate]]:
    """AK certificates of clouds, each with its issuers."""
    issuers = certificates(
        *(
            path
            for cloud in ("gcp-vtpm", "azure-vtpm")
            for path in sorted((COLLATERAL / cloud).glob("*"))
            if path.suffix != ".json"
        )
    )
    issuers += certificates(
        *(path for folder in sample_folders("azure-tdx-vtpm") for path in folder.glob("ak_intermediate_*.der"))
    )
    leaves = certificates(COLLATERAL / "gcp-vtpm" / "sample_gce_ak_cert.der")
    leaves += certificates(
        *(path for folder in sample_folders("azure-tdx-vtpm") for path in folder.glob("ak_cert.der"))
    )
    chains = []
    for leaf in leaves:
        chain = [leaf]
        while chain[-1].issuer != chain[-1].subject:
            chain.append(next(one for one in issuers if _issued(chain[-1], one)))
        chains.append(chain)
    return chains


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001  # whatever it is, it is not the issuer
        return False
    return True


@needs_evidence
def test_every_ak_certificate_of_a_cloud_leads_to_a_pinned_root(tell: Callable[[str], None]) -> None:
    roots = []
    for certificates_ in cloud_chains():
        chain = VendorChain(kind="ak", certificates=tuple(certificates_), crls=())
        key: Any = certificates_[0].public_key()
        findings = judge_vendor_chain(chain, tee="tpm", now=LATER, roots=TPM_ROOTS, key=key)
        assert {finding.outcome for finding in findings} == {Outcome.PASSED}
        roots.append(chain.root_name(TPM_ROOTS))
    assert set(roots) == {root.name for root in TPM_ROOTS}
    tell(f"{len(roots)} AK certificates of {' and '.join(sorted(set(roots)))}")


@needs_evidence
def test_pinned_roots_are_those_of_the_published_certificates() -> None:
    files = (*(COLLATERAL / "gcp-vtpm").glob("*root*"), *(COLLATERAL / "azure-vtpm").glob("*root*"))
    found = {hashlib.sha256(one.public_bytes(Encoding.DER)).digest() for one in certificates(*files)}
    assert {root.sha256 for root in TPM_ROOTS} <= found


@needs_evidence
def test_a_local_ca_of_swtpm_is_refused() -> None:
    local = [item for item, _, _ in quotes() if "ek_root" in dict(item.endorsements)]
    assert local
    for item in local:
        claims = verify(item, NOW, Checks())
        strict = strict_policy_of("tpm")
        assert isinstance(strict, TpmPolicy)
        refused = [one.code for one in check(claims, strict) if one.outcome is Outcome.FAILED]
        assert claims.ek_root == ""
        assert "tpm.ek_chain_root" in refused


@needs_evidence
def test_a_flipped_bit_of_a_log_is_refused_or_proves_less(tell: Callable[[str], None]) -> None:
    """Data in a log are hints, believed where their digest was extended: a change can only lose what they said."""
    item, now = one_genuine()
    good = verify(item, now, Checks())
    assert good.boot is not None
    draw = random.Random(4)  # noqa: S311  # a seeded choice, no secret
    refused, accepted = 0, 0
    for place in draw.sample(event_log_bytes(item), 600):
        raw = bytearray(item.evidence)
        raw[place] ^= 1 << draw.randrange(8)
        try:
            claims = verify(dataclasses.replace(item, evidence=bytes(raw)), now, Checks())
        except RejectedEvidenceError:
            refused += 1
            continue
        assert claims.boot is not None
        assert dataclasses.replace(claims, boot=good.boot) == good
        require_no_more(claims.boot, good.boot)
        accepted += 1
    assert refused > 0
    assert accepted > 0
    tell(f"{refused} flips in a log refused, {accepted} prove nothing new")


def require_no_more(found: BootClaims, good: BootClaims) -> None:
    assert found.secure_boot in {None, good.secure_boot}
    assert set(found.unclosed) >= set(good.unclosed)
    assert (found.applications, found.files, found.firmware_flags) == (
        good.applications,
        good.files,
        good.firmware_flags,
    )
    for name in ("variables", "kernels", "initrds"):
        assert set(getattr(found, name)) <= set(getattr(good, name))
    assert found.firmware in {"", good.firmware}
    assert found.memory_encryption in {"", good.memory_encryption}
    digests = {line.digest for line in found.command_lines}
    assert digests >= {line.digest for line in good.command_lines}
    known = {line.text for line in good.command_lines}
    assert {
        line.text for line in found.command_lines if line.digest in {good.digest for good in good.command_lines}
    } <= {
        *known,
        "",
    }


@needs_evidence
def test_a_quote_is_judged_fast(tell: Callable[[str], None]) -> None:
    item, now = one_genuine()
    times = []
    for _ in range(31):
        begin = time.perf_counter()
        tuple(check(verify(item, now, Checks()), POLICY))
        times.append(time.perf_counter() - begin)
    tell(
        f"median {1000 * statistics.median(times):.2f} ms for a TPM quote and {len(parse(item.evidence).event_log)} "
        "bytes of log"
    )
