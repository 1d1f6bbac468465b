"""The operations about credentials for a TPM, by this project's own code (see vector_operations)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from blindai.attestation.tpm2.credential import activation_answer, make_credential
from blindai.channel.activation import encode_answer, encode_request, parse_request
from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]
_MODULUS_BYTES = 256


def _make_credential(inputs: Inputs) -> Outputs:
    ek, ak_name, secret = inputs["ek"], inputs["ak_name"], inputs["secret"]
    key = (
        rsa.RSAPublicNumbers(65537, int.from_bytes(ek, "big")).public_key()
        if len(ek) == _MODULUS_BYTES
        else ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ek)
    )
    credential = make_credential(key, ak_name, secret, random=inputs["random"])
    activation = activation_answer(secret, ak_name)
    return {
        "blob": credential.blob,
        "encrypted_seed": credential.encrypted_seed,
        "activation": activation,
        "request": encode_request(credential),
        "answer": encode_answer(activation),
    }


def _read_credential(inputs: Inputs) -> Outputs:
    try:
        credential = parse_request(inputs["request"])
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
    return {"blob": credential.blob, "encrypted_seed": credential.encrypted_seed}


CREDENTIAL_OPERATIONS: dict[str, Callable[[Inputs], Outputs]] = {
    "make_credential": _make_credential,
    "read_credential": _read_credential,
}
