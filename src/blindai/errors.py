"""The whole exception tree: what can go wrong, and what to do next.

Every error carries a message (what was expected, what was found; never a secret) and `hint`, the next step.
`code` is the stable name of the failure on the wire and in `--json` output.

    BlindAIError
    ├── RejectedEvidenceError            the peer is not proven to be what the policy accepts
    │   ├── MalformedEvidenceError       cannot be parsed exactly
    │   ├── UnauthenticEvidenceError     a signature or chain does not verify
    │   ├── StaleEvidenceError           nonce, binding, level or time is not ours
    │   └── PolicyViolationError         authentic, but not accepted
    ├── EndorsementsUnavailableError     vendor certificates or collateral cannot be had
    ├── AttesterError                    this machine cannot make evidence
    ├── InvalidPolicyError               a policy file is not one; the message names the line
    ├── InvalidManifestError             a manifest is not one, or no pinned key has signed it
    ├── InvalidSettingsError             a server's configuration cannot be used
    ├── ChannelError                     the connection or a sealed message failed
    │   ├── ConnectionLostError          (also a builtin ConnectionError)
    │   ├── PeerKeyMismatchError
    │   ├── WrongServiceError
    │   ├── WrongOperatorError
    │   ├── KeysetExpiredError
    │   ├── SealedMessageError           changed, reordered or not for this key
    │   ├── TruncatedMessageError
    │   └── ReplayedMessageError
    ├── InvalidReceiptError
    ├── InferenceError                   the server's answer; `.status` is its HTTP status
    │   ├── InvalidInputError 400 · UnauthenticatedError 401 · ForbiddenError 403 · ModelNotFoundError 404
    │   ├── MethodNotAllowedError 405 · ModelChangedError 412 · TooLargeError 413
    │   ├── UnsupportedEncodingError 415 · ActivationRefusedError 422 · OverloadedError 429 · InternalError 500
    │   └── NotSupportedError 501 · ModelNotReadyError 503 · DeadlineExceededError 504
    └── ModelStoreError                  `.status` is its HTTP status
        ├── InvalidModelError 422 · ModelDigestMismatchError 409
        └── UnsealError 500 · NotAuthorizedError 403
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class BlindAIError(Exception):
    """The root of everything that this project raises on purpose.

    Attributes:
        hint: what the reader can do next; empty if there is nothing to say.
        code: the failure's stable name.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RejectedEvidenceError(BlindAIError):
    """The peer is not proven to be what the policy accepts.

    Attributes:
        finding_code: stable name of the check that failed, for example `simulation.signature`.
        tee: the TEE whose evidence was judged, or empty.
        findings: every check made so far (`attestation.evidence.Finding`), passed ones included.
    """

    code = "rejected_evidence"

    def __init__(
        self, message: str, *, finding_code: str, tee: str = "", findings: tuple[Any, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.finding_code = finding_code
        self.tee = tee
        self.findings = findings


class MalformedEvidenceError(RejectedEvidenceError):
    """The evidence or its envelope cannot be parsed exactly."""

    code = "malformed_evidence"


class UnauthenticEvidenceError(RejectedEvidenceError):
    """A signature or certificate chain does not lead to a pinned root."""

    code = "unauthentic_evidence"


class StaleEvidenceError(RejectedEvidenceError):
    """The evidence is not about this nonce, these keys, this kind of keyset or this time."""

    code = "stale_evidence"


class PolicyViolationError(RejectedEvidenceError):
    """The evidence is authentic, and the policy does not accept what it says."""

    code = "policy_violation"


class EndorsementsUnavailableError(BlindAIError):
    """Vendor certificates, revocation lists or collateral cannot be had."""

    code = "endorsements_unavailable"


class AttesterError(BlindAIError):
    """This machine's TEE or TPM does not give what is asked of it."""

    code = "attester"


class InvalidPolicyError(BlindAIError):
    """A policy cannot be read, or says less than a policy must; the message names the file and line."""

    code = "invalid_policy"


class InvalidManifestError(BlindAIError):
    """A manifest is not one, or nobody who is trusted has signed it; the message names the file."""

    code = "invalid_manifest"


class InvalidSettingsError(BlindAIError):
    """The server's configuration cannot be used."""

    code = "invalid_settings"


class ChannelError(BlindAIError):
    """The connection or a sealed message failed."""

    code = "channel"


class ConnectionLostError(ChannelError, ConnectionError):
    """The server cannot be reached, or the connection broke."""

    code = "connection_lost"


class PeerKeyMismatchError(ChannelError):
    """The peer does not hold the attested key."""

    code = "peer_key_mismatch"


class WrongServiceError(ChannelError):
    """The keyset names another service than the one asked for."""

    code = "wrong_service"


class WrongOperatorError(ChannelError):
    """No operator that the policy pins has admitted this instance."""

    code = "wrong_operator"


class KeysetExpiredError(ChannelError):
    """The attested keys have ended, or are not valid yet."""

    code = "keyset_expired"


class SealedMessageError(ChannelError):
    """A sealed message was changed, reordered, or made for another key."""

    code = "sealed_message"


class TruncatedMessageError(ChannelError):
    """A sealed message ended before its last frame."""

    code = "truncated_message"


class ReplayedMessageError(ChannelError):
    """A sealed message was seen before; each runs at most once."""

    code = "replayed_message"


class InvalidReceiptError(BlindAIError):
    """A receipt or proof does not verify, or is about something else."""

    code = "invalid_receipt"


class InferenceError(BlindAIError):
    """The server refused or failed a request; `status` is the HTTP status of its sealed answer.

    Attributes:
        retry_after_s: after how many seconds the same request may succeed (`Retry-After`); `None` says nothing.
    """

    code = "inference"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class InvalidInputError(InferenceError):
    """The request does not fit the model or the protocol."""

    code = "invalid_input"
    status = 400


class UnauthenticatedError(InferenceError):
    """No credential, or one that the server does not know."""

    code = "unauthenticated"
    status = 401


class ForbiddenError(InferenceError):
    """The credential does not allow this."""

    code = "forbidden"
    status = 403


class ModelNotFoundError(InferenceError):
    """No such model or version."""

    code = "model_not_found"
    status = 404


class MethodNotAllowedError(InferenceError):
    """The path is served under other methods."""

    code = "method_not_allowed"
    status = 405


class ModelChangedError(InferenceError):
    """The model behind the name is no longer the one whose metadata the client holds (`If-Match`)."""

    code = "model_changed"
    status = 412


class TooLargeError(InferenceError):
    """A body or a declared size passes the server's limit."""

    code = "too_large"
    status = 413


class UnsupportedEncodingError(InferenceError):
    """A body is compressed in a way that the server does not undo."""

    code = "unsupported_encoding"
    status = 415


class ActivationRefusedError(InferenceError):
    """The server's TPM does not hold both keys for which a credential was made."""

    code = "activation_refused"
    status = 422


class OverloadedError(InferenceError):
    """Too many requests wait; try again later."""

    code = "overloaded"
    status = 429


class InternalError(InferenceError):
    """The server failed; its log knows more than it may tell."""

    code = "internal"
    status = 500


class NotSupportedError(InferenceError):
    """Other servers have this, and this one leaves it out on purpose."""

    code = "not_supported"
    status = 501


class ModelNotReadyError(InferenceError):
    """The model's process is not there yet, or has just ended."""

    code = "model_not_ready"
    status = 503


class DeadlineExceededError(InferenceError):
    """The model, or the server's TPM, took longer than allowed."""

    code = "deadline_exceeded"
    status = 504


class ModelStoreError(BlindAIError):
    """A model cannot be stored, opened or changed; `status` as in `InferenceError`."""

    code = "model_store"
    status: ClassVar[int] = 500


class InvalidModelError(ModelStoreError):
    """The file is not a model that this server can run."""

    code = "invalid_model"
    status = 422


class ModelDigestMismatchError(ModelStoreError):
    """The bytes that arrived are not the bytes that were announced."""

    code = "model_digest_mismatch"
    status = 409


class UnsealError(ModelStoreError):
    """Stored bytes do not open under this enclave's key."""

    code = "unseal"


class NotAuthorizedError(ModelStoreError):
    """Only the model's owner may do this."""

    code = "not_authorized"
    status = 403


_Error = TypeVar("_Error")
_SECONDS = re.compile(r"[0-9]{1,9}\Z")


def _descendants(cls: type[_Error]) -> Iterator[type[_Error]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


ServerError = InferenceError | ModelStoreError

_SERVER_ERRORS: dict[str, type[ServerError]] = {
    InferenceError.code: InferenceError,
    ModelStoreError.code: ModelStoreError,
    **{cls.code: cls for cls in _descendants(InferenceError)},
    **{cls.code: cls for cls in _descendants(ModelStoreError)},
}


def server_error(code: str, message: str, *, hint: str = "", retry_after: str | None = None) -> ServerError:
    """Build the error that an answer names, with its `Retry-After`; an unknown code is an `InternalError`."""
    error = _SERVER_ERRORS.get(code, InternalError)(message, hint=hint)
    if isinstance(error, InferenceError) and retry_after is not None and _SECONDS.match(retry_after):
        error.retry_after_s = int(retry_after)
    return error
