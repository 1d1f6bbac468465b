"""A running server on a manufacturer's TPM (swtpm): clients that trust the maker, and what they refuse."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tpm.manufacturer import Manufacturer
from tpm.relay import ACTIVATE, NV_READ, NV_READ_PUBLIC, QUOTE, TpmRelay
from tpm.software_tpm import SoftwareTpm
from tpm.test_tpm_server import POLICY, Server

import blindai
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.tee import tpm as verifier
from blindai.attestation.tpm2.credential import Credential
from blindai.attester.tpm import TpmAttester
from blindai.attester.tpm2.endorsement import CredentialRefusedError
from blindai.errors import DeadlineExceededError, OverloadedError, PolicyViolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.swtpm, pytest.mark.network]
CLIENTS = 64
CERTIFICATE = bytes.fromhex("01c00002")


class Site:
    """A TPM of a manufacturer, a relay before it, a server that uses it, and a policy that names the maker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manufacturer = Manufacturer(folder / "manufacturer")
        self.tpm = self.another_tpm("tpm")
        claims = verifier.verify(TpmAttester(self.tpm, folder / "no-log").attest(bytes(64)), 0.0, Checks())
        self.pcr_11 = claims.pcrs[11].hex()
        self.relay = TpmRelay(folder / "relay.sock", self.tpm)
        self.server: Any = None

    def another_tpm(self, name: str) -> SoftwareTpm:
        self.manufacturer.make(self.folder / name)
        return SoftwareTpm(self.folder / name)

    def serve(self) -> str:
        options = ("--tpm-ek-issuers", str(self.manufacturer.issuers))
        self.server = Server(self.relay, self.folder, *options)
        return str(self.server.url)

    def policy(self, *, root: str | None = None) -> Path:
        text = POLICY.format(pcrs=list(range(24)), pcr_11=self.pcr_11, ak_name="000b" + bytes(32).hex())
        named = f'["{self.manufacturer.root_sha256.hex() if root is None else root}"]'
        text = text.replace('ak_certified = ["ak_name"]', 'ak_certified = ["activation"]')
        lines = [line for line in text.splitlines() if not line.startswith(("ak_names", "ek_roots"))]
        path = self.folder / "policy.toml"
        path.write_text("\n".join([*lines, 'ak_names = { skip = "any machine of this maker" }', f"ek_roots = {named}"]))
        return path

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
        self.relay.stop()
        self.tpm.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.stop()


def showing(tpm: SoftwareTpm, other: SoftwareTpm) -> dict[int, Callable[[bytes], bytes]]:
    """What makes a machine show the other one's certificate for its EK."""

    def read(command: bytes) -> bytes:
        return (other if CERTIFICATE in command[10:18] else tpm)(command)

    return {NV_READ: read, NV_READ_PUBLIC: read}


def refusal(url: str, policy: Path) -> PolicyViolationError:
    with pytest.raises(PolicyViolationError) as refused:
        blindai.connect(url, policy=policy)
    return refused.value


def test_a_client_that_trusts_the_maker_trusts_a_machine_that_it_never_saw(site: Site) -> None:
    url, policy = site.serve(), site.policy()
    with blindai.connect(url, policy=policy) as client:
        shown = {one.code: one for one in client.attestation.findings}
        assert (shown["tpm.activation"].outcome, shown["tpm.ak_certified"].found) == (Outcome.PASSED, "activation")
        assert client.models() == ()
    assert site.relay.counts[ACTIVATE] == 1
    asyncio.run(connect_async(url, policy))
    assert site.relay.counts[ACTIVATE] == 2


async def connect_async(url: str, policy: Path) -> None:
    async with blindai.AsyncClient(url, policy=policy) as client:
        assert await client.models() == ()


def test_a_maker_that_the_policy_does_not_name_is_refused(site: Site) -> None:
    error = refusal(site.serve(), site.policy(root="00" * 32))
    assert error.finding_code == "tpm.ek_chain_root"


def test_another_tpms_certificate_is_refused(site: Site) -> None:
    """The same maker's, and genuine: whoever runs the machine shows it in the place of its own."""
    other = site.another_tpm("other")
    try:
        site.relay.instead = showing(site.tpm, other)
        error = refusal(site.serve(), site.policy())
        found = next(one.found for one in error.findings if one.code == "tpm.activation")
        assert (error.finding_code, found) == (
            "tpm.activation",
            "a TPM that does not hold both of them, as the server says",
        )
    finally:
        other.stop()


def test_a_credential_that_is_relayed_to_the_tpm_of_the_certificate_is_refused(site: Site) -> None:
    """The other TPM opens nothing for this one's AK: handles of keys and sessions are its own, and so is its AK."""
    other = site.another_tpm("other")
    relayed: list[bytes] = []

    def by_the_other(command: bytes) -> bytes:
        """ActivateCredential's parameters, with the other machine's own keys and session."""
        relayed.append(command)
        attester = TpmAttester(other, site.folder / "no-log", ek_issuers=site.manufacturer.issuers)
        at = 10 + 8 + 4 + int.from_bytes(command[18:22], "big")
        blob_end = at + 2 + int.from_bytes(command[at : at + 2], "big")
        credential = Credential(blob=command[at + 2 : blob_end], encrypted_seed=command[blob_end + 2 :])
        with pytest.raises(CredentialRefusedError):
            attester.activate(credential)
        return bytes.fromhex("80010000000a000001df")

    try:
        site.relay.instead = {**showing(site.tpm, other), ACTIVATE: by_the_other}
        assert refusal(site.serve(), site.policy()).finding_code == "tpm.activation"
        assert relayed
    finally:
        other.stop()


def test_a_slow_tpm_is_told_as_such_and_quotes_go_on_afterwards(site: Site) -> None:
    url, policy = site.serve(), site.policy()
    site.relay.slow_s = {ACTIVATE: 22.0}
    begun_s = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="TPM did not open our credential in time"):
        blindai.connect(url, policy=policy)
    assert 19.0 < time.monotonic() - begun_s < 22.0
    site.relay.slow_s = {}
    blindai.connect(url, policy=policy).close()


def test_sixty_four_clients_at_once_share_few_quotes_and_each_has_its_own_activation(site: Site) -> None:
    url, policy = site.serve(), site.policy()
    site.relay.counts.clear()
    turned_away: Counter[str] = Counter()
    connected: list[float] = []
    begun_s = time.monotonic()

    def connect() -> None:
        while True:
            try:
                blindai.connect(url, policy=policy).close()
            except OverloadedError as error:
                turned_away[str(error)] += 1
                time.sleep(0.1)
            else:
                connected.append(time.monotonic() - begun_s)
                return

    threads = [threading.Thread(target=connect) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(connected) == CLIENTS
    quotes, activations = site.relay.counts[QUOTE], site.relay.counts[ACTIVATE]
    assert activations == CLIENTS
    assert quotes < CLIENTS
    print(
        f"{CLIENTS} clients at once: {quotes} quotes, {activations} activations, {sum(turned_away.values())} times "
        f"turned away (429), all connected after {max(connected):.1f} s"
    )
