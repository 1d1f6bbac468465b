"""What is read before a store may move to another release: manifests, their signers, and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindai.attestation.manifest import sign_manifest
from blindai.client.options import model_files
from blindai.errors import InvalidInputError, InvalidManifestError, InvalidSettingsError
from blindai.server.hand_over import read_release, require_not_older
from blindai.server.settings import load_settings
from blindai.server.start_table import start_table
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
OPERATOR, OWNER, OTHER = (key.public_key().public_bytes_raw() for key in KEYS)
SIGNER = base64url_encode(OPERATOR)
MANIFEST = 'version = 1\nname = "blindai"\nrelease = "1.2.0"\n\n[tee.tpm.pcrs]\n"4" = ["' + "ab" * 32 + '"]\n'


def written(folder: Path, *signers: int, text: str = MANIFEST) -> Path:
    path = folder / "m.toml"
    path.write_text(text)
    lines = [sign_manifest(text.encode(), KEYS[number]).line() + "\n" for number in signers]
    (folder / "m.toml.sig").write_text("".join(lines))
    return path


def test_a_release_has_every_signer_whose_signature_holds(tmp_path: Path) -> None:
    path = written(tmp_path, 0, 1)
    other = sign_manifest(b"something else", KEYS[2]).line()
    with (tmp_path / "m.toml.sig").open("a") as file:
        file.write(other + "\n")
    release = read_release(path, "tpm", frozenset({OPERATOR}))
    assert release.version == "1.2.0"
    assert release.signers == {OPERATOR, OWNER}
    assert release.reference == {"pcrs": {"4": ["ab" * 32]}}


def test_what_no_operator_signed_is_no_release(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    for operators in (frozenset({OPERATOR}), frozenset()):
        with pytest.raises(InvalidManifestError, match="no key of `upgrade_signers`"):
            read_release(path, "tpm", operators)


@pytest.mark.parametrize("missing", ["m.toml", "m.toml.sig"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    path = written(tmp_path, 0)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidManifestError, match=f"{missing}: No such file"):
        read_release(path, "tpm", frozenset({OPERATOR}))


def test_a_manifest_that_says_nothing_of_the_tee_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifestError, match="it says nothing of sev_snp"):
        read_release(written(tmp_path, 0), "sev_snp", frozenset({OPERATOR}))


def test_a_signed_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifestError, match="more"):
        read_release(written(tmp_path, 0, text="more = 1\n" + MANIFEST), "tpm", frozenset({OPERATOR}))


def test_no_release_is_older_than_this_one(tmp_path: Path) -> None:
    release = read_release(written(tmp_path, 0), "tpm", frozenset({OPERATOR}))
    require_not_older(release, "1.2.0")
    require_not_older(release, "1.2.0rc1")
    with pytest.raises(InvalidManifestError, match=r"release 1\.2\.0 is older than this one, 1\.2\.1a1"):
        require_not_older(release, "1.2.1a1")


MOVES = {"simulation": True, "tpm": "/dev/tpmrm0", "model_store": "/kept", "upgrade_signers": [SIGNER]}


@pytest.mark.parametrize("which", ["take_over_from", "hand_over_to"])
def test_a_store_moves_where_a_tpm_seals_it_and_somebody_may_sign(which: str) -> None:
    good: dict[str, Any] = {**MOVES, which: "m.toml"}
    assert load_settings(None, good).upgrade_keys == {OPERATOR}
    for without, words in (("upgrade_signers", "nobody may sign"), ("tpm", "none is sealed by a TPM")):
        with pytest.raises(InvalidSettingsError, match=words):
            load_settings(None, {name: value for name, value in good.items() if name != without})
    with pytest.raises(InvalidSettingsError, match="none is sealed by a TPM"):
        load_settings(None, {**good, "simulation": False, "model_store": None})


@pytest.mark.parametrize("key", ["", "A" * 42, "A" * 44, SIGNER + "="])
def test_a_signer_is_an_ed25519_key(key: str) -> None:
    with pytest.raises(InvalidSettingsError, match="Ed25519 public keys in unpadded base64url"):
        load_settings(None, {"simulation": True, "upgrade_signers": [key]})


def test_the_table_at_the_start_says_where_the_store_goes() -> None:
    settings = load_settings(None, {**MOVES, "hand_over_to": "m.toml"})
    assert any("HANDED OVER by 'm.toml'" in line for line in start_table(settings))


def test_an_uploader_names_an_ed25519_key(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"m")
    options: dict[str, Any] = {"name": None, "version": None, "data_files": None, "shape": None, "load": True}
    assert model_files(tmp_path / "m.onnx", **options, owner_key=base64url_encode(OWNER)).owner_key == OWNER
    assert model_files(tmp_path / "m.onnx", **options, owner_key=None).owner_key is None
    with pytest.raises(InvalidInputError, match="Ed25519") as refusal:
        model_files(tmp_path / "m.onnx", **options, owner_key="A" * 42)
    assert "manifest sign" in refusal.value.hint
