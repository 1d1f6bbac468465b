"""Checks a Sigstore bundle offline: who signed a file, by word of an identity provider and a transparency log.

Needs the extra `sigstore`. Nothing is fetched: the trusted root is a file, or the one that came with the package.
Leaves out: signing, which needs a browser or a workload's token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindai.errors import BlindAIError, InvalidManifestError

if TYPE_CHECKING:
    from pathlib import Path


def verify_bundle(data: bytes, bundle: bytes, *, identity: str, issuer: str, trusted_root: Path | None) -> None:
    """Check that `identity` signed these bytes, by word of `issuer`, and that the log has it.

    Args:
        data: the signed file's exact bytes.
        bundle: the bundle, JSON.
        identity: an e-mail address or URI, compared as a whole.
        issuer: the URL of the OpenID Connect issuer, likewise.
        trusted_root: Sigstore's `trusted_root.json`; the packaged one if None.

    Raises:
        InvalidManifestError: the bundle is not about these bytes, this identity or a log that the root names.
        BlindAIError: the extra is not there.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import Bundle, TrustedRoot
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity
    except ModuleNotFoundError as error:
        raise BlindAIError(f"this needs {error.name}", hint="pip install 'blindai[sigstore]'") from None
    try:
        if trusted_root is None:
            verifier = Verifier.production(offline=True)
        else:
            verifier = Verifier(trusted_root=TrustedRoot.from_file(str(trusted_root)))
        parsed: Any = Bundle.from_json(bundle)
        verifier.verify_artifact(data, parsed, Identity(identity=identity, issuer=issuer))
    except (Error, ValueError) as error:
        raise InvalidManifestError(f"the Sigstore bundle does not verify: {error}") from None
