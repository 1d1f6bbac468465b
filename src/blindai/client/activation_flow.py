"""Asks a server's TPM, once for each pair of keys, whether it holds both: a step of attesting, without I/O.

Leaves out: what is asked and what an answer proves (channel/activation.py), and whether the policy is content with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.tpm2.vouchers import Activation
from blindai.channel.activation import (
    ACTIVATION_PATH,
    MAX_ANSWER_BYTES,
    ShownKeys,
    challenge,
    keys_to_activate,
    with_activation,
)
from blindai.client.transport import HttpRequest, HttpResponse
from blindai.errors import (
    ActivationRefusedError,
    ConnectionLostError,
    DeadlineExceededError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotSupportedError,
    OverloadedError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from blindai.attestation.evidence import AttestationDocument
    from blindai.attestation.policy import Policy
    from blindai.client.connection import Connection

ANSWER_S = 30.0
_OK = 200
_UNKNOWN = (ModelNotFoundError.status, MethodNotAllowedError.status, NotSupportedError.status)


def activate(connection: Connection, document: AttestationDocument) -> Generator[HttpRequest, HttpResponse, Policy]:
    """The policy by which to judge a document, after the TPM was asked what the policy wants to know of it.

    Raises:
        ConnectionLostError: no answer.
        OverloadedError: too many ask the TPM at the moment.
        DeadlineExceededError: the TPM is too slow.
    """
    policy = connection.settings.policy
    keys = keys_to_activate(document, policy)
    if keys is None:
        return policy
    known = Activation(ek_key_sha256=keys.vouchers.ek_key_sha256, ak_name=keys.vouchers.ak_name)
    if known in connection.activations:
        return with_activation(policy, known)
    found = yield from _ask_tpm(connection, keys, known)
    if not found.refusal:
        connection.activations.add(found)
    return with_activation(policy, found)


def _ask_tpm(
    connection: Connection, keys: ShownKeys, unknown: Activation
) -> Generator[HttpRequest, HttpResponse, Activation]:
    asked = challenge(keys, connection.random)
    if asked is None:
        return Activation(
            ek_key_sha256=unknown.ek_key_sha256,
            ak_name=unknown.ak_name,
            refusal="an EK that is neither RSA-2048 nor P-256",
        )
    response = yield HttpRequest(
        method="POST",
        path=ACTIVATION_PATH,
        headers=(("Accept", "application/json"), ("Cache-Control", "no-store"), ("Content-Type", "application/json")),
        body=asked.request,
        max_body_bytes=MAX_ANSWER_BYTES,
        timeout_s=connection.settings.timeout_s,
        deadline_s=ANSWER_S,
    )
    if response.status == _OK:
        return asked.outcome(response.body)
    if response.status == ActivationRefusedError.status:
        return asked.refused("a TPM that does not hold both of them, as the server says")
    if response.status in _UNKNOWN:
        return asked.refused(f"a server that opens no credentials (status {response.status})")
    raise _unavailable(response.status)


def _unavailable(status: int) -> Exception:
    """Nothing is proved, and nothing is disproved."""
    if status == OverloadedError.status:
        return OverloadedError("too many clients ask the server's TPM at the moment", hint="try again in a second")
    if status == DeadlineExceededError.status:
        return DeadlineExceededError(
            "the server's TPM did not open our credential in time", hint="try again in a minute"
        )
    return ConnectionLostError(f"the server answered our credential with status {status}", hint="ask its operator")
