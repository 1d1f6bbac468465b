"""A release's signed list of reference values, which a policy can point to (docs/spec/manifest.md).

What is signed is the file's exact bytes; nothing of it is believed before a pinned key's signature was verified.
Leaves out: reading files, and private keys' files (cli/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from blindai.attestation.policy_file import open_policy
from blindai.attestation.policy_release import parse_release
from blindai.errors import InvalidManifestError, InvalidPolicyError
from blindai.wire import base64url_encode, exact_bytes, label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from blindai.attestation.policy_file import Section
    from blindai.attestation.policy_release import Release

MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURES = 16
MAX_SIGNATURE_FILE_BYTES = 4096
SIGNATURE_SUFFIX = ".sig"
MANIFEST_LABEL = label("manifest")

_ALGORITHM = "ed25519"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_MODEL_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")
_MAX_TABLES = 3  # of a TEE's reference values: its own table, and tables in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a release consists of, in the words of whoever signed it.

    Attributes:
        name: what is released.
        tees: for each TEE, fields of its policy table that hold reference values.
        models: names and digests (`sha256:…`) of models.
    """

    name: str
    release: Release
    tees: Mapping[str, Mapping[str, Any]] = field(repr=False)
    models: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSignature:
    """One line of a signature file: an Ed25519 public key (32 bytes) and its signature (64 bytes)."""

    public_key: bytes
    signature: bytes

    def line(self) -> str:
        """The line, without its end."""
        return f"{_ALGORITHM} {base64url_encode(self.public_key)} {base64url_encode(self.signature)}"

    def is_of(self, manifest: bytes) -> bool:
        """Whether the key has signed these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.signature, MANIFEST_LABEL + manifest)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign_manifest(manifest: bytes, private_key: Ed25519PrivateKey) -> ManifestSignature:
    """Sign a manifest's exact bytes."""
    return ManifestSignature(
        public_key=private_key.public_key().public_bytes_raw(),
        signature=private_key.sign(MANIFEST_LABEL + manifest),
    )


def parse_signatures(data: bytes, *, source: str) -> tuple[ManifestSignature, ...]:
    """Read a signature file: 1 to 16 lines `ed25519 KEY SIGNATURE`, both in unpadded base64url.

    Raises:
        InvalidManifestError: anything else.
    """
    if len(data) > MAX_SIGNATURE_FILE_BYTES:
        raise InvalidManifestError(f"{source}: a signature file has at most {MAX_SIGNATURE_FILE_BYTES} bytes")
    *lines, rest = data.decode("ascii", "replace").split("\n")
    if rest or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise InvalidManifestError(f"{source}: expected 1 to {MAX_SIGNATURES} whole lines, found {len(lines)}")
    return tuple(_parse_signature(line, f"{source}, line {number}") for number, line in enumerate(lines, start=1))


def _parse_signature(line: str, where: str) -> ManifestSignature:
    try:
        key, signature = line.removeprefix(f"{_ALGORITHM} ").split(" ")  # what has another prefix has three parts
        return ManifestSignature(public_key=exact_bytes(key, 32), signature=exact_bytes(signature, 64))
    except ValueError:
        raise InvalidManifestError(f"{where}: expected `{_ALGORITHM} KEY SIGNATURE`, both in base64url") from None


def verify_manifest(
    manifest: bytes, signatures: bytes, *, public_keys: tuple[bytes, ...], source: str
) -> tuple[Manifest, bytes]:
    """A manifest that one of the pinned keys has signed, and that key.

    Args:
        manifest: the file's exact bytes.
        signatures: the signature file's.
        public_keys: pinned Ed25519 keys, 32 bytes each.
        source: the manifest's name, for messages.

    Raises:
        InvalidManifestError: no signature by a pinned key, or not exactly a manifest.
    """
    for one in parse_signatures(signatures, source=source + SIGNATURE_SUFFIX):
        if one.public_key in public_keys and one.is_of(manifest):
            return parse_manifest(manifest, source=source), one.public_key
    raise InvalidManifestError(
        f"{source}: no signature by a pinned key",
        hint="get manifest and signature from the same release; if its signer has a new key, learn of it elsewhere",
    )


def signers_of(manifest: bytes, signatures: bytes, *, source: str) -> frozenset[bytes]:
    """Every Ed25519 public key that has signed a manifest's exact bytes, whoever's it is.

    Raises:
        InvalidManifestError: the signature file is none.
    """
    lines = parse_signatures(signatures, source=source + SIGNATURE_SUFFIX)
    return frozenset(one.public_key for one in lines if one.is_of(manifest))


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """Read a manifest; who signed it is asked elsewhere.

    Raises:
        InvalidManifestError: anything but exactly a version 1 manifest of at most 1 MiB; the message names the line.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidManifestError(f"{source}: a manifest has at most {MAX_MANIFEST_BYTES} bytes")
    try:
        return _parse(open_policy(data.decode("utf-8"), source=source))
    except UnicodeDecodeError:
        raise InvalidManifestError(f"{source}: not UTF-8") from None
    except InvalidPolicyError as error:  # what reads tables speaks of policies
        raise InvalidManifestError(str(error), hint=error.hint) from None


def _parse(root: Section) -> Manifest:
    root.require_version_1("manifests")
    root.require_keys("version", "name", "release", optional=("tee", "models"))
    manifest = Manifest(
        name=root.line("name"),
        release=_parse_release(root),
        tees=dict(_parse_tees(root.section("tee"))) if "tee" in root.members else {},
        models=tuple(_parse_models(root.section("models"))) if "models" in root.members else (),
    )
    if not manifest.tees and not manifest.models:
        raise root.error("names neither a TEE's reference values nor a model")
    return manifest


def _parse_release(root: Section) -> Release:
    try:
        return parse_release(root.members["release"])
    except ValueError as error:
        raise root.error(f"is no release: {error}", "release") from None


def _parse_models(section: Section) -> Iterator[tuple[str, str]]:
    for name, digest in section.members.items():
        if not isinstance(digest, str) or not _MODEL_DIGEST.match(digest):
            raise section.error("must be `sha256:` and 64 lower-case hexadecimal digits", name)
        yield name, digest


def _parse_tees(section: Section) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Tables of TEEs that this release does not know are kept: a manifest is for every client."""
    for name in section.members:
        if not _NAME.match(name):
            raise section.error("is not the name of a TEE", name)
        table = section.section(name)
        _require_reference_values(table, _MAX_TABLES)
        yield name, table.members


def _require_reference_values(section: Section, depth: int) -> None:
    """Measured values and nothing else: a signer of reference values has no say in what is checked."""
    if not section.members:
        raise section.error("has no reference value")
    for key, value in section.members.items():
        if isinstance(value, dict) and depth > 1:
            _require_reference_values(section.section(key), depth - 1)
        elif not _is_reference_value(value):
            raise section.error("must be a list of lower-case hexadecimal digits, a whole number, or a table", key)


def _is_reference_value(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and bool(_HEX.match(one)) for one in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
