"""A Sigstore bundle says who signed a manifest, to whoever has a trusted root and no network.

Synthetic: the authority and the logs are our own (fakes/sigstore_world.py), the verification is the package's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from cli.in_process import blindai_here
from fakes.sigstore_world import SigstoreWorld

from blindai.cli.sigstore_bundle import verify_bundle
from blindai.errors import BlindAIError, InvalidManifestError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("sigstore", reason="needs the extra sigstore")

WHO, ISSUER = "builder@example.org", "https://issuer.example.org"
MANIFEST = f'version = 1\nname = "blindai"\nrelease = "1.2.0"\ntee.nitro.pcr0 = ["{"ab" * 48}"]\n'.encode()
WORLD = SigstoreWorld()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.toml").write_bytes(MANIFEST)
    (tmp_path / "root.json").write_bytes(WORLD.trusted_root())
    (tmp_path / "bundle.json").write_bytes(WORLD.bundle(MANIFEST, identity=WHO, issuer=ISSUER))
    return tmp_path


def test_who_signed_is_found_offline(folder: Path) -> None:
    options = ("--sigstore", folder / "bundle.json", "--identity", WHO, "--issuer", ISSUER)
    ended = blindai_here(
        "manifest", "verify", folder / "manifest.toml", *options, "--trusted-root", folder / "root.json"
    )
    assert ended.code == 0, ended.err
    assert f"is signed by {WHO} by word of {ISSUER}" in ended.out


@pytest.mark.parametrize(
    ("data", "identity", "issuer"),
    [
        (MANIFEST + b"#", WHO, ISSUER),
        (MANIFEST, "another@example.org", ISSUER),
        (MANIFEST, WHO, "https://another.example.org"),
    ],
)
def test_other_bytes_and_other_people_are_refused(folder: Path, data: bytes, identity: str, issuer: str) -> None:
    bundle = (folder / "bundle.json").read_bytes()
    with pytest.raises(InvalidManifestError, match="does not verify"):
        verify_bundle(data, bundle, identity=identity, issuer=issuer, trusted_root=folder / "root.json")


@pytest.mark.parametrize("part", ["authority", "certificate_log", "signature_log"])
def test_a_root_that_names_another_for_any_part_refuses(folder: Path, part: str) -> None:
    parts = {name: getattr(WORLD, name) for name in ("authority", "certificate_log", "signature_log")}
    other = SigstoreWorld(**{**parts, part: getattr(SigstoreWorld(), part)})
    (folder / "root.json").write_bytes(other.trusted_root())
    bundle = (folder / "bundle.json").read_bytes()
    with pytest.raises(InvalidManifestError, match="does not verify"):
        verify_bundle(MANIFEST, bundle, identity=WHO, issuer=ISSUER, trusted_root=folder / "root.json")


@pytest.mark.parametrize("bundle", [b"", b"{}", b"[]", b"\xff", b'{"mediaType": 1}'])
def test_what_is_no_bundle_is_refused(folder: Path, bundle: bytes) -> None:
    with pytest.raises(InvalidManifestError, match="does not verify"):
        verify_bundle(MANIFEST, bundle, identity=WHO, issuer=ISSUER, trusted_root=folder / "root.json")


@pytest.mark.parametrize("root", [b"", b"{}", b"\xff"])
def test_what_is_no_trusted_root_is_refused(folder: Path, root: bytes) -> None:
    (folder / "root.json").write_bytes(root)
    bundle = (folder / "bundle.json").read_bytes()
    with pytest.raises(InvalidManifestError, match="does not verify"):
        verify_bundle(MANIFEST, bundle, identity=WHO, issuer=ISSUER, trusted_root=folder / "root.json")


def test_without_the_extra_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.verify", None)
    with pytest.raises(BlindAIError) as refusal:
        verify_bundle(MANIFEST, b"{}", identity=WHO, issuer=ISSUER, trusted_root=folder / "root.json")
    assert refusal.value.hint == "pip install 'blindai[sigstore]'"
