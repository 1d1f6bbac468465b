"""Two releases one after the other on one machine, as their operator, a model's owner and a client see it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from e2e import tiny_models
from tpm.test_tpm_hand_over import NEW, OLD, OPERATOR, OWNER, Machine, public
from tpm.test_tpm_server import POLICY, Server

import blindai
from blindai.attestation.checks import Checks
from blindai.attestation.tee import tpm as verifier
from blindai.attester.tpm import TpmAttester
from blindai.errors import ModelNotFoundError
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from pathlib import Path

    from tpm.software_tpm import SoftwareTpm

pytestmark = [pytest.mark.swtpm, pytest.mark.network]


def policy_for(tpm: SoftwareTpm, path: Path) -> Path:
    """One that accepts what has booted now."""
    claims = verifier.verify(TpmAttester(tpm, path.with_suffix(".none")).attest(bytes(64)), 0.0, Checks())
    pcr_11, name = claims.pcrs[11].hex(), claims.ak_name.hex()
    path.write_text(POLICY.format(pcrs=list(range(24)), pcr_11=pcr_11, ak_name=name))
    return path


def sign(manifest: str, folder: Path) -> None:
    """The owner's signature beside the operator's, as the owner makes it."""
    key = folder / "owner.pem"
    key.write_bytes(OWNER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    command = [sys.executable, "-m", "blindai.cli.main", "manifest", "sign", manifest, "--key", str(key)]
    subprocess.run(command, check=True, capture_output=True)


def settings(path: Path, **values: str) -> tuple[str, str]:
    lines = [f'upgrade_signers = ["{base64url_encode(public(OPERATOR))}"]']
    path.write_text("\n".join([*lines, *(f'{name} = "{value}"' for name, value in values.items())]) + "\n")
    return "--config", str(path)


def test_a_model_goes_from_one_release_to_the_next_with_its_owners_signature(tpm: SoftwareTpm, tmp_path: Path) -> None:
    machine = Machine(tpm, tmp_path)
    new, old = machine.manifest("next", NEW, OPERATOR), machine.old
    sign(new, tmp_path)
    machine.boot(OLD)
    policy = policy_for(tpm, tmp_path / "old-policy.toml")
    mine, theirs = tiny_models.times(tmp_path / "mine.onnx", 3), tiny_models.times(tmp_path / "theirs.onnx", 2)
    server = Server(tpm, tmp_path, *settings(tmp_path / "old-settings.toml"))
    with blindai.connect(server.url, policy=policy) as client:
        client.upload_model(mine, owner_key=base64url_encode(public(OWNER)))
        client.upload_model(theirs)
    server.stop()
    machine.boot(OLD)
    server = Server(tpm, tmp_path, *settings(tmp_path / "last-settings.toml", hand_over_to=new))
    server.kill()  # switched off
    assert "1 of 2 models" in (tmp_path / "log").read_text()
    machine.boot(NEW)
    policy = policy_for(tpm, tmp_path / "new-policy.toml")
    server = Server(tpm, tmp_path, *settings(tmp_path / "new-settings.toml", take_over_from=old))
    with blindai.connect(server.url, policy=policy) as client:
        assert client.infer("mine", [1, 2, 3])["y"].tolist() == [[3, 6, 9]]
        with pytest.raises(ModelNotFoundError):
            client.infer("theirs", [1, 2, 3])
    server.stop()
    tpm.release()
