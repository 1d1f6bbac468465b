"""`blindai manifest`: what is signed is verified, what was changed is not, and other people's signatures stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli.in_process import blindai_here
from cli.processes import Ended, blindai
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from blindai.cli.whole_file import write_whole
from blindai.policies import load_policy
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(2)]
PUBLIC = [base64url_encode(key.public_key().public_bytes_raw()) for key in KEYS]
VALUE = "ab" * 32
MANIFEST = f"""version = 1
name = "blindai"
release = "1.2.0"
[tee.simulation]
measurement = ["{VALUE}"]
[models]
risk = "sha256:{VALUE}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.toml").write_text(MANIFEST, "utf-8")
    for number, key in enumerate(KEYS):
        (tmp_path / f"{number}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{number}.pub").write_bytes(public)
    return tmp_path


def sign(folder: Path, key: str = "0.pem", *options: str | Path, stdin: str = "") -> Ended:
    run = blindai if stdin else blindai_here  # a password is read from a terminal, if there is one
    arguments = ("manifest", "sign", folder / "manifest.toml", "--key", folder / key, *options)
    return run(*arguments, stdin=stdin)


def verify(folder: Path, *options: str | Path) -> Ended:
    return blindai_here("manifest", "verify", folder / "manifest.toml", *options)


def test_what_is_signed_is_verified_and_a_policy_takes_its_values(folder: Path) -> None:
    signed = sign(folder)
    assert signed.code == 0, signed.err
    assert signed.out == f'public_keys = ["{PUBLIC[0]}"]\n'
    for key in (PUBLIC[0], folder / "0.pub"):
        verified = verify(folder, "--public-key", key)
        assert verified.code == 0, verified.err
        assert f"is signed by {PUBLIC[0]}" in verified.out
        assert "release  1.2.0" in verified.out
        assert f"model risk: sha256:{VALUE}" in verified.out
    (folder / "policy.toml").write_text(
        f"""version = 1
insecure_simulation = true
operator.skip = "a test"
level.minimum = "fresh"
release.minimum = "1.1.0"
runtime.require.models = "manifest"
manifest = {{ file = "manifest.toml", {signed.out.strip()} }}
tee.simulation.reference_values = "manifest"
""",
        "utf-8",
    )
    shown = blindai_here("policy", "check", folder / "policy.toml").out
    assert f"tee.simulation.measurement  {VALUE}" in shown
    assert f"runtime.require.models      sha256:{VALUE}" in shown
    assert load_policy(folder / "policy.toml").any_of


def test_for_scripts(folder: Path) -> None:
    told = json.loads(sign(folder, "0.pem", "--json").out)
    assert (told["public_key"], told["release"], told["models"]) == (PUBLIC[0], "1.2.0", {"risk": f"sha256:{VALUE}"})
    again = json.loads(verify(folder, "--public-key", PUBLIC[0], "--json").out)
    assert again["public_key"] == PUBLIC[0]
    assert again["tee"] == {"simulation": {"measurement": [VALUE]}}


def test_signatures_of_the_same_bytes_stay_and_others_go(folder: Path) -> None:
    sign(folder, "0.pem")
    assert "2 signatures" in sign(folder, "1.pem").err
    assert "2 signatures" in sign(folder, "1.pem").err  # one of each signer
    assert (verify(folder, "--public-key", PUBLIC[0]).code, verify(folder, "--public-key", PUBLIC[1]).code) == (0, 0)
    (folder / "manifest.toml").write_text(MANIFEST + "# changed\n", "utf-8")
    assert verify(folder, "--public-key", PUBLIC[0]).code == 6
    assert "1 signature;" in sign(folder, "1.pem").err
    assert (verify(folder, "--public-key", PUBLIC[0]).code, verify(folder, "--public-key", PUBLIC[1]).code) == (6, 0)


def test_what_nobody_named_has_signed_is_refused(folder: Path) -> None:
    sign(folder, "0.pem")
    ended = verify(folder, "--public-key", PUBLIC[1])
    assert (ended.code, ended.out) == (6, "")
    assert "no signature by a pinned key" in ended.err


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        ([], 2, "name a signer"),
        (["--public-key", "nowhere.pub"], 2, "nowhere.pub"),
        (["--public-key", "0.pem"], 2, "not an Ed25519 public key"),
        (["--public-key", "ec.pub"], 2, "not an Ed25519 public key"),
        (["--sigstore", "bundle.json"], 2, "--identity"),
    ],
)
def test_a_signer_is_named(folder: Path, options: list[str], code: int, problem: str) -> None:
    sign(folder)
    public = generate_private_key(SECP256R1()).public_key()
    (folder / "ec.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    paths = [str(folder / one) if "." in one else one for one in options]
    ended = verify(folder, *paths)
    assert (ended.code, problem in ended.err) == (code, True), ended.err


def test_what_is_no_manifest_is_not_signed(folder: Path) -> None:
    (folder / "manifest.toml").write_text(MANIFEST.replace("1.2.0", "newest"), "utf-8")
    ended = sign(folder)
    assert (ended.code, (folder / "manifest.toml.sig").exists()) == (6, False)
    assert "manifest.toml, line 3: `release` is no release" in ended.err


def test_a_key_may_have_a_password(folder: Path) -> None:
    secret = KEYS[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
    (folder / "secret.pem").write_bytes(secret)
    assert sign(folder, "secret.pem", stdin="pass\n").code == 0
    assert verify(folder, "--public-key", PUBLIC[0]).code == 0
    assert sign(folder, "secret.pem", stdin="wrong\n").code == 2


@pytest.mark.parametrize("key", ["ec.pem", "0.pub"])
def test_only_an_ed25519_key_signs(folder: Path, key: str) -> None:
    other = generate_private_key(SECP256R1())
    (folder / "ec.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ended = sign(folder, key)
    assert (ended.code, "not an Ed25519 private key" in ended.err) == (2, True)
    assert "openssl genpkey" in ended.err


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one")
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]  # a failure in the middle
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])
