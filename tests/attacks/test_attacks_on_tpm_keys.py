"""A server must show that the TPM of the EK that it shows holds the key that quotes: who cannot is refused, and why.

The application and the client's flow are the real ones; the TPM is a fake that quotes anything, with an EK in software.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attacks.world import Time
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.network import Answered, Network, Sent
from fakes.tpm_endorsement import SoftwareEk
from fakes.tpm_vendor import EK_PURPOSE, NOW, FakeTpm, FakeVendor, Private, rsa_key

from blindai.attestation.binding import report_data_32
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy import parse_policy
from blindai.attestation.tpm2.credential import Credential, activation_answer
from blindai.channel.activation import ACTIVATION_PATH, encode_answer
from blindai.client.attest_flow import attest
from blindai.client.connection import ClientSettings, Connection
from blindai.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    OverloadedError,
    PolicyViolationError,
    RejectedEvidenceError,
)
from blindai.policies import preset_table
from blindai.server.serve import create_app
from blindai.server.settings import Settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.attestation.evidence import EvidenceItem
    from blindai.attestation.policy import Policy
    from blindai.channel.attested import AttestedKeyset
    from blindai.server.app import App

MAKER = FakeVendor(name="a maker")
CURVE_KEY = ec.derive_private_key(12345, ec.SECP256R1())
AN_AK = ec.derive_private_key(777, ec.SECP256R1())
HEAD = """
version = 1
preset = "{preset}"
insecure_simulation = false
[operator]
skip = "a test"
[release]
skip = "a test"
[runtime]
skip = "a test"
[level]
minimum = "fresh"
[tee.tpm]
"""
SKIPPED = ("pcrs", "boot_applications", "kernel", "initrd", "command_line", "boot_files", "required_pcrs")
FIELDS = {
    **dict.fromkeys((*SKIPPED, "secure_boot", "firmware_closed", "firmware_flags"), '{ skip = "a test" }'),
    **dict.fromkeys(("debug_arguments", "revocation_grace_s"), '{ skip = "a test" }'),
    "ak_certified": '["activation"]',
    "ek_roots": f'["{MAKER.pinned[0].sha256.hex()}"]',
}


def tpm_policy(preset: str = "strict", **fields: str) -> Policy:
    table = {**FIELDS, **fields}
    text = HEAD.format(preset=preset) + "\n".join(f"{name} = {value}" for name, value in table.items())
    return parse_policy(text, source="policy.toml", preset_table=preset_table)


def nobody(_: Credential) -> bytes:
    raise AssertionError("nobody should have asked the TPM")


@dataclass(kw_only=True)
class Machine:
    """A server's TPM: it quotes with `tpm`, shows `chain`, and opens credentials with `ek`."""

    tee: str = "tpm"
    tpm: FakeTpm = field(default_factory=lambda: FakeTpm(key=AN_AK, scheme="ecdsa"))
    ek: Private = field(default_factory=rsa_key)
    vendor: FakeVendor = field(default_factory=lambda: MAKER)
    chain: dict[str, bytes] | None = None
    asked: int = 0

    def attest(self, bound: bytes) -> EvidenceItem:
        self.tpm.bound = report_data_32(bound)
        self.tpm.endorsements = ek_chain(self.ek, self.vendor) if self.chain is None else self.chain
        return self.tpm.item()

    def activate(self, credential: Credential) -> bytes:
        self.asked += 1
        name = self.tpm.ak_name
        return activation_answer(SoftwareEk(key=self.ek, ak_name=name).open(credential), name)


def ek_chain(key: Private, vendor: FakeVendor = MAKER) -> dict[str, bytes]:
    return vendor.chain(vendor.certify(key, signs=False, purposes=(EK_PURPOSE,)), "ek")


@dataclass(kw_only=True)
class Site:
    """A server on a machine, and clients of it whose every byte passes the attacker."""

    network: Network
    time: Time

    def client(self, policy: Policy) -> Connection:
        return Connection(ClientSettings(policy=policy), clock=self.time.client(), random=os.urandom)

    def attest(self, policy: Policy, connection: Connection | None = None) -> AttestedKeyset:
        return self.network.drive(attest(connection or self.client(policy)))

    def refusal(self, policy: Policy) -> RejectedEvidenceError:
        with pytest.raises(RejectedEvidenceError) as refusal:
            self.attest(policy)
        return refusal.value

    def asked(self) -> int:
        return sum(sent.path == ACTIVATION_PATH for sent, _ in self.network.log)


@pytest.fixture
def site_of(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    opened: list[App] = []

    def site(machine: Machine, activate: Any = None, **hooks: Any) -> Site:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        time = Time(wall_s=NOW.timestamp())
        app = create_app(
            Settings(tpm="/dev/tpmrm0"),
            attester=machine,
            directory=folder,
            clock=time.server(),
            activate=activate or machine.activate,
        )
        opened.append(app)
        return Site(network=Network(app=app, loop=loop, **hooks), time=time)

    yield site
    for app in opened:
        loop.run_until_complete(app.sealed.service.pool.close())
        app.sealed.service.store.close()


def why(error: RejectedEvidenceError) -> str:
    """What was found where the activation was judged."""
    assert isinstance(error, PolicyViolationError)
    finding = next(one for one in error.findings if one.code == "tpm.activation")
    assert finding.outcome is Outcome.FAILED
    return str(finding.found)


@pytest.mark.parametrize("ek", [rsa_key(), CURVE_KEY], ids=["rsa", "ecc"])
def test_a_tpm_that_holds_both_keys_is_asked_once_and_trusted(site_of: Callable[..., Site], ek: Private) -> None:
    machine = Machine(ek=ek)
    site, policy = site_of(machine), tpm_policy()
    connection = site.client(policy)
    for _ in range(3):
        attested = site.attest(policy, connection)
        (shown,) = (one for one in attested.result.findings if one.code == "tpm.activation")
        assert (shown.outcome, shown.found) == (Outcome.PASSED, "that proof")
    assert (site.asked(), machine.asked) == (1, 1)
    site.attest(policy)
    assert site.asked() == 2  # another client has seen nothing of it


def test_another_ak_of_the_same_tpm_is_asked_about_again(site_of: Callable[..., Site]) -> None:
    machine = Machine()
    site, policy = site_of(machine), tpm_policy()
    connection = site.client(policy)
    site.attest(policy, connection)
    machine.tpm = FakeTpm(key=ec.derive_private_key(778, ec.SECP256R1()), scheme="ecdsa")
    site.attest(policy, connection)
    assert machine.asked == 2


def test_a_key_that_something_else_vouches_for_asks_nothing_of_the_tpm(site_of: Callable[..., Site]) -> None:
    site = site_of(Machine(), nobody)
    name = f'["{FakeTpm(key=AN_AK, scheme="ecdsa").ak_name.hex()}"]'
    attested = site.attest(tpm_policy(ak_certified='["activation", "ak_name"]', ak_names=name))
    assert "tpm.activation" not in {one.code for one in attested.result.findings}


def test_another_tpms_certificate_is_refused(site_of: Callable[..., Site]) -> None:
    site = site_of(Machine(chain=ek_chain(rsa_key(1))))
    error = site.refusal(tpm_policy())
    assert error.finding_code == "tpm.activation"
    assert why(error) == "a TPM that does not hold both of them, as the server says"


def test_a_key_in_software_beside_a_real_tpms_certificate_is_refused_though_its_tpm_is_asked(
    site_of: Callable[..., Site],
) -> None:
    """The credential is relayed to the real machine, whose AK is another one."""
    real = Machine(ek=rsa_key(1))
    site = site_of(Machine(chain=ek_chain(rsa_key(1)), tpm=FakeTpm()), real.activate)
    assert why(site.refusal(tpm_policy())) == "a TPM that does not hold both of them, as the server says"
    assert real.asked == 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (encode_answer(bytes(32)), "an answer from somebody who has not opened our credential"),
        (b"{}", "an answer that is none: "),
        (b"", "an answer that is none: "),
        (encode_answer(bytes(31)), "an answer that is none: "),
    ],
    ids=["zeros", "empty-object", "nothing", "short"],
)
def test_an_answer_that_proves_nothing_is_refused(site_of: Callable[..., Site], answer: bytes, found: str) -> None:
    def forge(sent: Sent, answered: Answered) -> Answered:
        return Answered(status=200, body=answer) if sent.path == ACTIVATION_PATH else answered

    error = site_of(Machine(), on_answer=forge).refusal(tpm_policy())
    assert error.finding_code == "tpm.activation"
    assert why(error).startswith(found)


def test_the_answer_to_another_client_is_refused(site_of: Callable[..., Site]) -> None:
    kept: list[Answered] = []

    def repeat(sent: Sent, answered: Answered) -> Answered:
        if sent.path != ACTIVATION_PATH:
            return answered
        kept.append(answered)
        return kept[0]

    site = site_of(Machine(), on_answer=repeat)
    site.attest(tpm_policy())
    assert why(site.refusal(tpm_policy())) == "an answer from somebody who has not opened our credential"


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_opens_none_is_refused(site_of: Callable[..., Site], status: int) -> None:
    def unknown(sent: Sent) -> Sent | Answered:
        return Answered(status=status) if sent.path == ACTIVATION_PATH else sent

    found = why(site_of(Machine(), on_request=unknown).refusal(tpm_policy()))
    assert found == f"a server that opens no credentials (status {status})"


@pytest.mark.parametrize(
    ("status", "error"), [(429, OverloadedError), (504, DeadlineExceededError), (500, ConnectionLostError)]
)
def test_a_tpm_that_cannot_be_asked_now_is_no_verdict(
    site_of: Callable[..., Site], status: int, error: type[Exception]
) -> None:
    def busy(sent: Sent) -> Sent | Answered:
        return Answered(status=status) if sent.path == ACTIVATION_PATH else sent

    with pytest.raises(error):
        site_of(Machine(), on_request=busy).attest(tpm_policy())


def test_a_refusal_is_not_remembered(site_of: Callable[..., Site]) -> None:
    answers = [422]

    def once(sent: Sent) -> Sent | Answered:
        return Answered(status=answers.pop()) if sent.path == ACTIVATION_PATH and answers else sent

    site, policy = site_of(Machine(), on_request=once), tpm_policy()
    connection = site.client(policy)
    with pytest.raises(PolicyViolationError):
        site.attest(policy, connection)
    site.attest(policy, connection)


def test_an_ek_of_another_kind_is_refused_and_named(site_of: Callable[..., Site]) -> None:
    site = site_of(Machine(chain=ek_chain(ec.derive_private_key(5, ec.SECP384R1()))), nobody)
    assert why(site.refusal(tpm_policy())) == "an EK that is neither RSA-2048 nor P-256"


def test_a_machine_that_shows_no_ek_is_refused(site_of: Callable[..., Site]) -> None:
    assert why(site_of(Machine(chain={}), nobody).refusal(tpm_policy())) == "no certificate of an EK"


def test_evidence_that_cannot_be_read_is_refused_as_such(site_of: Callable[..., Site]) -> None:
    site = site_of(Machine(chain={**ek_chain(rsa_key()), "ek_certificate": b"none"}), nobody)
    assert site.refusal(tpm_policy()).finding_code == "tpm.certificate_format"


@pytest.mark.parametrize("preset", ["strict", "cloud-gcp", "cloud-azure"])
@pytest.mark.parametrize("way", ["activation", "vendor_certificate"])
def test_who_holds_every_secret_of_a_test_manufacturer_satisfies_no_production_policy(
    site_of: Callable[..., Site], preset: str, way: str
) -> None:
    """Its CA's key certifies an EK in software, which opens every credential: only who names that root is fooled."""
    ek = ec.generate_private_key(ec.SECP256R1())
    machine = Machine(ek=ek, vendor=MAKER)
    site = site_of(machine)
    error = site.refusal(tpm_policy(preset, ek_roots="[]", ak_certified=f'["{way}"]'))
    assert error.finding_code == "tpm.ek_chain_root"
    assert {"tpm.ek_chain_root", "tpm.ak_certified"} <= {
        one.code for one in error.findings if one.outcome is Outcome.FAILED
    }
    site.attest(tpm_policy(preset))  # the test's own policy names it


def test_an_ak_certified_by_a_test_manufacturer_is_refused(site_of: Callable[..., Site]) -> None:
    """`ek_roots` is for EKs: it opens no second way for AKs."""
    machine = Machine(chain=MAKER.chain(MAKER.certify(AN_AK)))
    error = site_of(machine, nobody).refusal(tpm_policy(ak_certified='["vendor_certificate", "activation"]'))
    assert error.finding_code == "tpm.ak_chain_root"


def test_an_ek_certificate_that_has_ended_is_refused(site_of: Callable[..., Site]) -> None:
    old = MAKER.certify(rsa_key(), signs=False, purposes=(EK_PURPOSE,), not_after=NOW - timedelta(days=1))
    assert site_of(Machine(chain=MAKER.chain(old, "ek"))).refusal(tpm_policy()).finding_code == "tpm.ek_chain_validity"


def test_a_simulated_server_opens_no_credentials(site_of: Callable[..., Site]) -> None:
    site = site_of(Machine())
    site.network.app.activation.activate = None
    sent = Sent(method="POST", path=ACTIVATION_PATH, headers=(), body=b"{}")
    assert site.network.deliver(sent).status == 501
