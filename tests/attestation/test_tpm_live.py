"""A running TPM 2.0 (swtpm) quotes what was measured into it, and its evidence is judged like any other.

Needs swtpm and tpm2-tools (`make test-tpm`).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.tpm_boot import FakeBoot, firmware, grub
from fakes.tpm_vendor import ALL_PCRS, BOUND, EK_PURPOSE, NOW, FakeVendor

from blindai.attestation.checks import Checks
from blindai.attestation.tee.tpm import TpmClaims, parse, verify
from blindai.attestation.tpm2.credential import Credential, make_credential
from blindai.attestation.tpm2.event_log import parse_event_log
from blindai.attestation.tpm2.keys import parse_public
from blindai.attestation.tpm2.vouchers import Activation
from blindai.errors import UnauthenticEvidenceError
from blindai.evidence_files.tpm import read_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("swtpm") is None or shutil.which("tpm2_quote") is None, reason="no swtpm"),
]
VENDOR = FakeVendor()
LOADS_KEYS = {f"tpm2_{verb}" for verb in ("createek", "createak", "readpublic", "quote", "activatecredential", "sign")}
SECRET = b"a secret of the verifier's own\0\0"


class Tool(Protocol):
    """Runs a tool of tpm2-tools on the TPM, and fails if it does."""

    def __call__(self, name: str, *arguments: str | Path) -> None: ...


def free_ports() -> tuple[int, int]:
    """Two ports in a row, as tpm2-tools expect the control channel to be."""
    for port in range(28100, 28900, 2):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port, port + 1
    raise AssertionError("no two free ports")


@contextmanager
def running_tpm(state: Path) -> Iterator[Tool]:
    """A new TPM: how to run a tool of tpm2-tools on it."""
    port, control = free_ports()
    state.mkdir()
    server, channel = f"type=tcp,port={port},bindaddr=127.0.0.1", f"type=tcp,port={control},bindaddr=127.0.0.1"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", server, "--ctrl", channel]
    process = subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"])

    def tool(name: str, *arguments: str | Path) -> None:
        tcti = ("-T", f"swtpm:host=127.0.0.1,port={port}")
        words = [name, *(str(argument) for argument in arguments)]
        done = subprocess.run([*words, *tcti], capture_output=True, check=False, timeout=60)
        if name in LOADS_KEYS:  # without a resource manager what was loaded stays, and there is room for three
            subprocess.run(["tpm2_flushcontext", "-t", *tcti], capture_output=True, check=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

    try:
        wait_for(port)
        yield tool
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    else:
        raise AssertionError("swtpm did not start")
    time.sleep(0.1)  # it serves one client at a time, and ours has just left


@pytest.fixture(scope="module", params=["rsa", "ecc"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Tool]]:
    """A folder with everything that a booted TPM shows, and the TPM."""
    folder = tmp_path_factory.mktemp(request.param)
    with running_tpm(folder / "state") as tool:
        boot = grub(firmware(FakeBoot(banks=("sha1", "sha256", "sha384"))))
        measure(boot, tool)
        (folder / "eventlog.bin").write_bytes(boot.log())
        make_keys(folder, tool, request.param)
        quote(folder, tool)
        yield folder, tool


def measure(boot: FakeBoot, tool: Tool) -> None:
    for event in parse_event_log(boot.log(), tee="tpm").events:
        if event.is_extended:
            digests = ",".join(f"{bank}={value.hex()}" for bank, value in event.digests.items())
            tool("tpm2_pcrextend", f"{event.pcr}:{digests}")


def make_keys(folder: Path, tool: Tool, kind: str) -> None:
    scheme = "rsassa" if kind == "rsa" else "ecdsa"
    tool("tpm2_createek", "-c", folder / "ek.ctx", "-G", kind, "-u", folder / "ek.pub")
    names = ("-u", folder / "ak.pub", "-r", folder / "ak.priv", "-n", folder / "ak.name")
    tool(
        "tpm2_createak",
        "-C",
        folder / "ek.ctx",
        "-c",
        folder / "ak.ctx",
        "-G",
        kind,
        "-g",
        "sha256",
        "-s",
        scheme,
        *names,
    )
    tool("tpm2_readpublic", "-c", folder / "ak.ctx", "-f", "tpmt", "-o", folder / "ak.tpmt_public")
    tool("tpm2_readpublic", "-c", folder / "ek.ctx", "-q", folder / "ek.qualified_name")
    key = parse_public((folder / "ek.pub").read_bytes()[2:], tee="tpm").key
    certificate = VENDOR.certify(key, signs=False, purposes=(EK_PURPOSE,))
    for name, one in (("ekcert", certificate), ("intermediate", VENDOR.intermediate), ("root", VENDOR.root)):
        (folder / f"{name}.der").write_bytes(one.public_bytes(Encoding.DER))
    (folder / "root.crl").write_bytes(VENDOR.crl())


def quote(folder: Path, tool: Tool, bound: bytes = BOUND) -> None:
    selection = "sha256:" + ",".join(str(index) for index in ALL_PCRS)
    parts = ("-m", folder / "quote.msg", "-s", folder / "quote.sig", "-o", folder / "pcrs.bin", "-F", "values")
    tool("tpm2_quote", "-c", folder / "ak.ctx", "-l", selection, "-q", bound.hex(), "-g", "sha256", *parts)


def verified(folder: Path) -> TpmClaims:
    return verify(read_folder(folder)[0], NOW.timestamp(), Checks(), roots=VENDOR.pinned)


def test_a_running_tpms_evidence_verifies(live: tuple[Path, Tool]) -> None:
    folder, _ = live
    claims = verified(folder)
    assert claims.bound == BOUND
    assert claims.ak_name == (folder / "ak.name").read_bytes()
    assert (claims.ek_root, claims.hierarchy) == ("fake vendor", "below another key")
    assert claims.boot is not None
    assert claims.boot.secure_boot is True
    assert claims.boot.command_lines[0].text == "/vmlinuz root=/dev/dm-0 ro quiet"
    assert parse(read_folder(folder)[0].evidence).ak_parent == (folder / "ek.qualified_name").read_bytes()


def test_its_own_answer_to_a_challenge_is_what_activation_means(live: tuple[Path, Tool]) -> None:
    """MakeCredential for this EK and AK name, and ActivateCredential in the TPM that holds both."""
    folder, tool = live
    (folder / "secret").write_bytes(SECRET)
    claims = verified(folder)
    blob = folder / "credential"
    tool(
        "tpm2_makecredential", "-u", folder / "ek.pub", "-s", folder / "secret", "-n", claims.ak_name.hex(), "-o", blob
    )
    assert activated(folder, tool, blob) == SECRET
    proven = Activation(ek_key_sha256=claims.ek_key_sha256, ak_name=claims.ak_name)
    assert len(proven.ek_key_sha256) == 32


def test_its_own_answer_to_our_credential_is_the_secret(live: tuple[Path, Tool]) -> None:
    """The same with a credential made here, for both kinds of EK; and with one for another AK."""
    folder, tool = live
    name, ek = verified(folder).ak_name, parse_public((folder / "ek.pub").read_bytes()[2:], tee="tpm").key
    for number in range(3):
        ours = make_credential(ek, name, SECRET, random=bytes([number]) * 64)
        (folder / "ours").write_bytes(as_tool_writes(ours))
        assert activated(folder, tool, folder / "ours") == SECRET
    (folder / "ours").write_bytes(as_tool_writes(make_credential(ek, name[:-1] + b"\0", SECRET, random=bytes(64))))
    with pytest.raises(AssertionError, match="integrity"):
        activated(folder, tool, folder / "ours")


def as_tool_writes(credential: Credential) -> bytes:
    """The file of tpm2-tools: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET."""
    parts = (len(part).to_bytes(2, "big") + part for part in (credential.blob, credential.encrypted_seed))
    return bytes.fromhex("badcc0de00000001") + b"".join(parts)


def activated(folder: Path, tool: Tool, blob: Path) -> bytes:
    answer = folder / "answer"
    tool("tpm2_startauthsession", "--policy-session", "-S", folder / "session")
    tool("tpm2_policysecret", "-S", folder / "session", "-c", "e")
    tool(
        *("tpm2_activatecredential", "-c", folder / "ak.ctx", "-C", folder / "ek.ctx", "-i", blob, "-o", answer),
        *("-P", f"session:{folder / 'session'}"),
    )
    tool("tpm2_flushcontext", folder / "session")
    return answer.read_bytes()


def test_what_is_measured_later_is_not_in_the_log(live: tuple[Path, Tool]) -> None:
    folder, tool = live
    tool("tpm2_pcrextend", f"7:sha256={'00' * 32}")
    quote(folder, tool)
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        verified(folder)
    assert refusal.value.finding_code == "tpm.event_log_replay"


def test_a_restricted_key_signs_no_quote_that_somebody_made_up(live: tuple[Path, Tool]) -> None:
    folder, tool = live
    with pytest.raises(AssertionError, match=r"(?i)ticket|attributes|scheme"):
        tool("tpm2_sign", "-c", folder / "ak.ctx", "-g", "sha256", "-o", folder / "forged.sig", folder / "quote.msg")
