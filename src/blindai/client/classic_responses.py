"""What `BlindAiClient` returns: responses that are saved with their proof, loaded again, and validated.

A saved response holds the answer, and that of a run the request too: it is private, and its `proof` alone can be
published. Leaves out: its form (saved_response.py), and how a proof is verified (proof.py).
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from blindai.bundle import UploadResult, parse_manifest
from blindai.channel.keyset import DEFAULT_SERVICE, keyset_id
from blindai.client.inputs import fits
from blindai.client.options import make_policy
from blindai.client.proof import verify_proof, write_private
from blindai.client.saved_response import SavedRun, SavedUpload, read_saved
from blindai.errors import InvalidInputError, InvalidReceiptError, PolicyViolationError
from blindai.oip.rest import decode_infer_request, decode_infer_response
from blindai.oip.tensor_entries import header_length
from blindai.receipts import opens, opens_response, response_salt, verify_receipt

if TYPE_CHECKING:
    from blindai.attestation.policy import Policy
    from blindai.client.proof import Opening, Proof
    from blindai.client.results import InferResult, UploadedModel
    from blindai.receipts import Receipt

_Run = TypeVar("_Run", bound="RunModelResponse")
_SIMULATION = "simulation"
_KEY_BYTES = 32  # of Ed25519, RFC 8032


class _Response(ABC):
    """What both have in common. One that was just made is empty until it is loaded, as in 0.3."""

    _kind: ClassVar[type[SavedRun | SavedUpload]]

    def __init__(self, *, server_name: str = DEFAULT_SERVICE) -> None:
        self._saved: SavedRun | SavedUpload | None = None
        self._server_name = server_name

    @property
    def proof(self) -> Proof:
        """What convinces others: publishable, without data (`Proof.save`)."""
        return self._held().proof

    def is_signed(self) -> bool:
        """Whether it carries a receipt: each answer does, an empty response does not."""
        return self._saved is not None

    def is_simulation_mode(self) -> bool:
        """Whether the server was simulated, so that nothing was protected; a loaded response says so of itself."""
        return any(item.tee == _SIMULATION for item in self.proof.document.evidence)

    def as_bytes(self) -> bytes:
        """The response and its proof, for `load_from_bytes`; private."""
        return self._held().encode()

    def save_to_file(self, path: str | os.PathLike[str]) -> None:
        """Write `as_bytes`, readable by its owner only; `blindai verify` reads it too."""
        write_private(Path(path), self.as_bytes())

    def load_from_file(self, path: str | os.PathLike[str]) -> Self:
        """Become the response that `save_to_file` wrote; `validate` says whether to believe it.

        Raises:
            FileNotFoundError: there is no such file.
            InvalidReceiptError: it holds no such response.
        """
        return self.load_from_bytes(Path(path).read_bytes())

    def load_from_bytes(self, b: bytes) -> Self:
        """Become the response that `as_bytes` gave; `validate` says whether to believe it.

        Raises:
            InvalidReceiptError: it is no such response.
        """
        saved = read_saved(b)
        if not isinstance(saved, self._kind):
            raise InvalidReceiptError(f"this is a saved response, and no {type(self).__name__}")
        self._saved = saved
        return self

    @abstractmethod
    def _held(self) -> SavedRun | SavedUpload: ...

    def _empty(self) -> InvalidReceiptError:
        return InvalidReceiptError("this response is empty and not signed", hint="load one with load_from_file")

    def _signed(
        self,
        policy: Policy | str | os.PathLike[str] | None,
        *,
        validate_quote: bool,
        enclave_signing_key: object,
        allow_simulation_mode: bool,
    ) -> Receipt:
        """The receipt, if its key is in evidence that the policy accepts, and is the one given, whichever is asked."""
        proof, simulated = self.proof, self.is_simulation_mode()
        if simulated and not allow_simulation_mode:
            raise PolicyViolationError(
                "the response comes from a simulated server, which protects nothing",
                finding_code="simulation.not_accepted",
                tee=_SIMULATION,
                hint="to try things out, say allow_simulation_mode=True",
            )
        signed = None
        if enclave_signing_key is not None:
            key, keys = _raw_key(enclave_signing_key), keyset_id(proof.document.keyset)
            signed = verify_receipt(proof.receipt, public_key=key, keyset_id=keys)
        if validate_quote:
            chosen = None if simulated else policy
            accepted = make_policy(_as_path(chosen), insecure_simulation=simulated)
            signed = verify_proof(proof, accepted, service=self._server_name, now=time.time()).receipt
        if signed is None:
            raise InvalidInputError(
                "without the evidence nothing says which key to believe",
                hint="give enclave_signing_key, or leave out validate_quote=False",
            )
        return signed


class UploadModelResponse(_Response):
    """What `upload_model` returns."""

    _kind = SavedUpload

    def _held(self) -> SavedUpload:
        if not isinstance(self._saved, SavedUpload):
            raise self._empty()
        return self._saved

    @property
    def _answer(self) -> UploadResult:
        return UploadResult.decode(self._held().answer)

    @property
    def model_id(self) -> str:
        """The model's name on the server."""
        return self._answer.name

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits, over all the model's files."""
        return self._answer.digest

    def validate(  # noqa: PLR0917  # the 0.3 signature
        self,
        model_hash: bytes | str,
        policy_file: str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        validate_quote: bool = True,  # noqa: FBT001, FBT002  # the 0.3 signature
        enclave_signing_key: object = None,
        allow_simulation_mode: bool = False,  # noqa: FBT001, FBT002  # likewise
    ) -> None:
        """Hold the response to what you believe, wherever it comes from; raises unless all of it is shown.

        Args:
            model_hash: SHA-256 of the `.onnx` file (32 bytes or hex), or a digest `sha256:…` over all files.
            policy_file: a policy file; the preset `strict` by default, which accepts nothing.
            policy: instead of a file.
            validate_quote: False leaves the evidence out; `enclave_signing_key` is then what is believed.
            enclave_signing_key: the Ed25519 key that must have signed, as 32 bytes or as an object of `cryptography`.
            allow_simulation_mode: accept a simulated server, which protects nothing; a policy is then not read.

        Raises:
            RejectedEvidenceError: the evidence is not acceptable, or simulated.
            InvalidReceiptError: not signed, or about another model.
        """
        receipt = self._signed(
            policy if policy is not None else policy_file,
            validate_quote=validate_quote,
            enclave_signing_key=enclave_signing_key,
            allow_simulation_mode=allow_simulation_mode,
        )
        held = self._held()
        opens_response(held.salt, held.answer, receipt)
        _require_upload(receipt, self._answer)
        if _digest_text(model_hash) not in _digests(self._answer, whole=isinstance(model_hash, str)):
            raise InvalidReceiptError("the response is about another model than the one whose hash was given")


class RunModelResponse(_Response):
    """What `run_model` returns."""

    _kind = SavedRun

    def _held(self) -> SavedRun:
        if not isinstance(self._saved, SavedRun):
            raise self._empty()
        return self._saved

    @property
    def opening(self) -> Opening:
        """What opens the proof to those who may see the data: private."""
        return self._held().opening

    @property
    def output(self) -> list[Any]:
        """The first output as a flat list."""
        opening = self.opening
        return decode_infer_response(opening.response_body, opening.response_header_length).outputs[0].as_flat()

    def validate(  # noqa: PLR0917  # the 0.3 signature
        self,
        data_list: Any,
        policy_file: str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        validate_quote: bool = True,  # noqa: FBT001, FBT002  # the 0.3 signature
        enclave_signing_key: object = None,
        allow_simulation_mode: bool = False,  # noqa: FBT001, FBT002  # likewise
        *,
        model_digest: str | None = None,
    ) -> None:
        """Hold the response to what you believe, wherever it comes from; raises unless all of it is shown.

        Args:
            data_list: what was sent, in any form that `run_model` takes.
            policy_file: as for `UploadModelResponse.validate`, and so are the others.
            policy: likewise.
            validate_quote: likewise.
            enclave_signing_key: likewise.
            allow_simulation_mode: likewise.
            model_digest: the model that must have answered, as `UploadModelResponse.digest` says it.

        Raises:
            RejectedEvidenceError: the evidence is not acceptable, or simulated.
            InvalidReceiptError: not signed, or about other data or another model.
        """
        receipt = self._signed(
            policy if policy is not None else policy_file,
            validate_quote=validate_quote,
            enclave_signing_key=enclave_signing_key,
            allow_simulation_mode=allow_simulation_mode,
        )
        opening = self.opening
        opens(opening.salt, request_body=opening.request_body, response_body=opening.response_body, receipt=receipt)
        if receipt.model is None or model_digest not in {None, receipt.model.digest}:
            raise InvalidReceiptError("another model answered than the one whose digest was given")
        sent = decode_infer_request(opening.request_body, header_length(opening.request_body)).inputs
        if not fits(data_list, sent):
            raise InvalidReceiptError("the response is about other data than those that were given")


def uploaded_response(uploaded: UploadedModel, *, server_name: str) -> UploadModelResponse:
    """The response to an upload that has just succeeded."""
    response = UploadModelResponse(server_name=server_name)
    proof, sealed = uploaded.proof(), uploaded.sealed
    response._saved = SavedUpload(proof=proof, salt=response_salt(sealed.salt), answer=sealed.body)  # noqa: SLF001
    return response


def fill_run(response: _Run, result: InferResult) -> _Run:
    """An empty response, as that to a run that has just succeeded."""
    response._saved = SavedRun(proof=result.proof(), opening=result.opening())  # noqa: SLF001  # it starts empty
    return response


def _require_upload(receipt: Receipt, answer: UploadResult) -> None:
    """The path is signed too: it tells an upload's answer from any other that says the same."""
    expected = ("POST", f"/v2/repository/models/{answer.name}/upload")
    if (receipt.method, receipt.path) != expected:
        raise InvalidReceiptError("the receipt is not that of an upload of this model")


def _digests(answer: UploadResult, *, whole: bool) -> set[str]:
    """What may be called the hash of this model: that of its `.onnx` file, and, where it is text, the bundle's."""
    files = parse_manifest(answer.manifest).files
    hashes = {f"sha256:{file.sha256.hex()}" for file in files if file.path.endswith(".onnx")}
    return hashes | {answer.digest} if whole else hashes


def _digest_text(model_hash: bytes | str) -> str:
    if isinstance(model_hash, str):
        return model_hash if model_hash.startswith("sha256:") else f"sha256:{model_hash.lower()}"
    if len(model_hash) != hashlib.sha256().digest_size:
        raise InvalidInputError("model_hash is a SHA-256: 32 bytes, 64 hex digits, or sha256:… as a response says it")
    return f"sha256:{model_hash.hex()}"


def _raw_key(key: object) -> bytes:
    raw = key.public_bytes_raw() if hasattr(key, "public_bytes_raw") else key
    if not isinstance(raw, bytes) or len(raw) != _KEY_BYTES:
        raise InvalidInputError("enclave_signing_key is an Ed25519 public key, as 32 bytes or of `cryptography`")
    return raw


def _as_path(policy: Policy | str | os.PathLike[str] | None) -> Policy | Path | None:
    """A file, never the name of a preset: that is what the argument is called."""
    return Path(policy) if isinstance(policy, str | os.PathLike) else policy
