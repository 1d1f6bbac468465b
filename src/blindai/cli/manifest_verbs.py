"""`blindai manifest …`: sign a release's reference values, and check who signed them (docs/spec/manifest.md).

Leaves out: using a manifest, which a policy does by naming it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.cli.options import JsonOption
from blindai.cli.screen import note, print_json, say
from blindai.cli.whole_file import write_whole
from blindai.errors import InvalidSettingsError
from blindai.wire import base64url_encode, exact_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from blindai.attestation.manifest import Manifest, ManifestSignature

app = typer.Typer(help="A release's signed reference values.", no_args_is_help=True, rich_markup_mode=None)

ManifestArgument = Annotated[Path, typer.Argument(metavar="MANIFEST.toml", help="the manifest")]
SignatureOption = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="its signatures [default: MANIFEST.toml.sig]")
]


@app.command("sign", short_help="Sign a manifest, beside other signers.")
def sign(
    manifest: ManifestArgument,
    key: Annotated[Path, typer.Option("--key", metavar="KEY.pem", help="an Ed25519 private key")],
    signature: SignatureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a manifest; other signers' signatures of the same bytes stay."""
    from blindai.attestation.manifest import parse_manifest, sign_manifest

    data, target = manifest.read_bytes(), signature or _beside(manifest)
    parsed = parse_manifest(data, source=str(manifest))
    made = sign_manifest(data, _private_key(key))
    kept = [one for one in _signatures(target) if one.public_key != made.public_key and one.is_of(data)]
    write_whole(target, "".join(f"{one.line()}\n" for one in (*kept, made)).encode())
    if as_json:
        print_json({**_members(parsed), "public_key": base64url_encode(made.public_key), "signature": str(target)})
        return
    note(
        f"wrote {target}: {len(kept) + 1} signature{'' if not kept else 's'}; for the policies of those who trust you:"
    )
    say(f'public_keys = ["{base64url_encode(made.public_key)}"]')


@app.command("verify", short_help="Check who signed a manifest.")
def verify(
    manifest: ManifestArgument,
    public_key: Annotated[
        list[str] | None,
        typer.Option("--public-key", metavar="KEY", help="base64url, or a PEM file; may be given again"),
    ] = None,
    signature: SignatureOption = None,
    bundle: Annotated[Path | None, typer.Option("--sigstore", metavar="BUNDLE", help="a Sigstore bundle")] = None,
    identity: Annotated[str | None, typer.Option("--identity", help="with --sigstore: who must have signed")] = None,
    issuer: Annotated[str | None, typer.Option("--issuer", help="with --sigstore: who must say so")] = None,
    trusted_root: Annotated[
        Path | None, typer.Option("--trusted-root", metavar="FILE", help="with --sigstore [default: the packaged one]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a manifest is one, and that a key or an identity that you name has signed it."""
    from blindai.attestation.manifest import parse_manifest, verify_manifest

    if not public_key and bundle is None:
        raise typer.BadParameter("name a signer: --public-key, or --sigstore with --identity and --issuer")
    data = manifest.read_bytes()
    signers: dict[str, Any] = {}
    if public_key:
        keys = tuple(_public_key(one) for one in public_key)
        signatures = (signature or _beside(manifest)).read_bytes()
        _, signer = verify_manifest(data, signatures, public_keys=keys, source=str(manifest))
        signers["public_key"] = base64url_encode(signer)
    if bundle is not None:
        signers["identity"] = _verify_bundle(data, bundle, identity, issuer, trusted_root)
    parsed = parse_manifest(data, source=str(manifest))
    if as_json:
        print_json({**_members(parsed), **signers})
        return
    say(f"✓ {manifest} is signed by {' and '.join(signers.values())}")
    _show(parsed)


def _verify_bundle(
    data: bytes, bundle: Path, identity: str | None, issuer: str | None, trusted_root: Path | None
) -> str:
    if identity is None or issuer is None:
        raise typer.BadParameter("--sigstore needs --identity and --issuer: anybody can have something signed")
    from blindai.cli.sigstore_bundle import verify_bundle

    verify_bundle(data, bundle.read_bytes(), identity=identity, issuer=issuer, trusted_root=trusted_root)
    return f"{identity} by word of {issuer}"


def _show(manifest: Manifest) -> None:
    say(f"  name     {manifest.name}\n  release  {manifest.release.text}")
    for tee, table in manifest.tees.items():
        say(f"  {tee}: {', '.join(table)}")
    for name, digest in manifest.models:
        say(f"  model {name}: {digest}")


def _members(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "release": manifest.release.text,
        "tee": {tee: dict(table) for tee, table in manifest.tees.items()},
        "models": dict(manifest.models),
    }


def _beside(manifest: Path) -> Path:
    from blindai.attestation.manifest import SIGNATURE_SUFFIX

    return manifest.with_name(manifest.name + SIGNATURE_SUFFIX)


def _signatures(path: Path) -> tuple[ManifestSignature, ...]:
    from blindai.attestation.manifest import parse_signatures

    return parse_signatures(path.read_bytes(), source=str(path)) if path.exists() else ()


def _private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file; asks for its password if it has one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = path.read_bytes()
    password = typer.prompt("password", hide_input=True, err=True).encode() if b"ENCRYPTED" in data else None
    try:
        key = load_pem_private_key(data, password)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidSettingsError(
            f"{path}: not an Ed25519 private key in PEM, or another password",
            hint="openssl genpkey -algorithm ed25519 -out key.pem",
        )
    return key


def _public_key(text: str) -> bytes:
    """A key as policies write it, or the one in a PEM file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return exact_bytes(text, 32)
    except ValueError:
        pass
    try:
        key = load_pem_public_key(Path(text).read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidSettingsError(f"{text}: not an Ed25519 public key, in base64url or as a PEM file")
    return key.public_bytes_raw()
