"""`BlindAiClient`: the API of BlindAI 0.3, a thin face over `Client` (docs/guides/classic.md).

What a script of that time relied on still holds: the server keeps what was uploaded, `run_model` without a name means
the model uploaded last (by any client), and a flat list takes the shape given at upload.
Leaves out: ports, certificates and signatures of that time, which attestation and receipts replace.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from blindai.client.sync_client import Client
from blindai.errors import ConnectionLostError, InvalidInputError, RejectedEvidenceError
from blindai.oip.tensors import Datatype

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from blindai.client.own_endorsements import Endorsements
    from blindai.client.proof import Proof
    from blindai.client.results import InferResult, UploadedModel
    from blindai.endorsements.documents import Source

AttestationError = RejectedEvidenceError


class ModelDatumType(IntEnum):
    """Element types, with the numbers of the 0.3 line."""

    F32 = 0
    F64 = 1
    I32 = 2
    I64 = 3
    U32 = 4
    U64 = 5
    U8 = 6
    U16 = 7
    I8 = 8
    I16 = 9
    Bool = 10


_DATATYPES = {
    ModelDatumType.F32: Datatype.FP32,
    ModelDatumType.F64: Datatype.FP64,
    ModelDatumType.I32: Datatype.INT32,
    ModelDatumType.I64: Datatype.INT64,
    ModelDatumType.U32: Datatype.UINT32,
    ModelDatumType.U64: Datatype.UINT64,
    ModelDatumType.U8: Datatype.UINT8,
    ModelDatumType.U16: Datatype.UINT16,
    ModelDatumType.I8: Datatype.INT8,
    ModelDatumType.I16: Datatype.INT16,
    ModelDatumType.Bool: Datatype.BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadModelResponse:
    """What `upload_model` returns; every answer is signed now, and its receipt was checked."""

    model_id: str
    digest: str
    _uploaded: UploadedModel = field(repr=False)

    def is_signed(self) -> bool:
        """True: each answer carries a receipt."""
        return True

    def is_simulation_mode(self) -> bool:
        """Whether the server is simulated, so that nothing is protected."""
        return self._uploaded.simulated


@dataclass(frozen=True, slots=True, kw_only=True)
class RunModelResponse:
    """What `run_model` returns.

    Attributes:
        output: the first output as a flat list.
        proof: what convinces others (`Proof.save`).
    """

    output: list[Any] = field(repr=False)
    _result: InferResult = field(repr=False)

    def is_signed(self) -> bool:
        """True: each answer carries a receipt."""
        return True

    def is_simulation_mode(self) -> bool:
        """Whether the server is simulated, so that nothing is protected."""
        return self._result.exchange.keyset.result.simulated

    @property
    def proof(self) -> Proof:
        """What convinces others of this run."""
        return self._result.proof()

    def as_bytes(self) -> bytes:
        """The proof as it stands in `proof.json`; `blindai verify` reads it."""
        return self.proof.encode()

    def save_to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the proof; it holds no data, and `blindai verify` reads it."""
        self.proof.save(path)


class BlindAiClient:
    """The client of BlindAI 0.3.

    Args:
        debug_mode: kept for old scripts; it changes nothing.
    """

    def __init__(self, debug_mode: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002  # the 0.3 signature
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_connection()

    def connect_server(  # noqa: PLR0913, PLR0917  # the 0.3 signature, and what came since
        self,
        addr: str,
        server_name: str = "blindai-srv",
        policy: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        simulation: bool = False,  # noqa: FBT001, FBT002  # the 0.3 signature
        untrusted_port: int = 50052,  # noqa: ARG002  # attestation and data share one port now
        attested_port: int = 50051,
        *,
        api_key: str | None = None,
        endorsements: Endorsements | Source | None = None,
    ) -> None:
        """Verify the server and connect to it.

        Args:
            addr: host name or address; `https://` before it is accepted.
            server_name: the service name that the keyset must carry.
            policy: path of a policy file.
            certificate: kept for old scripts: the attested keys replace it, so anything but None is refused.
            simulation: accept a simulated server, which protects nothing.
            untrusted_port: kept for old scripts; not used.
            attested_port: the server's port.
            api_key: where the server wants to know who asks.
            endorsements: your own, in place of those that the server staples.

        Raises:
            RejectedEvidenceError: the server is not proven to be what the policy accepts.
            EndorsementsUnavailableError: you insist on your own endorsements, and they cannot be had.
            ConnectionError: the server cannot be reached.
            FileNotFoundError: the policy file is not there.
        """
        if certificate is not None:
            raise InvalidInputError(
                "certificates are not pinned any more: the attested keys replace them",
                hint="leave `certificate` out; say in the policy what you accept",
            )
        if policy is not None and not Path(policy).is_file():
            raise FileNotFoundError(f"there is no policy file {os.fspath(policy)!r}")
        url = addr if _names_port(addr) else f"{addr.rstrip('/')}:{attested_port}"
        self.close_connection()
        self._client = Client(
            url,
            policy=None if policy is None or simulation else str(policy),
            service=server_name,
            insecure_simulation=simulation,
            api_key=api_key or None,  # scripts of the 0.5 line say "" for none
            endorsements=endorsements,
        )

    def upload_model(  # noqa: PLR0917  # the 0.3 signature
        self,
        model: str | os.PathLike[str],
        shape: Sequence[int] | None = None,
        dtype: ModelDatumType = ModelDatumType.F32,
        dtype_out: ModelDatumType = ModelDatumType.F32,  # noqa: ARG002  # the model says what it returns
        sign: bool = False,  # noqa: FBT001, FBT002, ARG002  # every answer is signed
        *,
        model_name: str | None = None,
    ) -> UploadModelResponse:
        """Upload an ONNX model; it becomes the one that `run_model` means.

        Args:
            model: the `.onnx` file.
            shape: the shape that a flat list takes; read from the model by default.
            dtype: element type of the input; must be the model's own if a shape is given.
            dtype_out: kept for old scripts; the model's own output type is returned.
            sign: kept for old scripts; every answer is signed.
            model_name: the file's stem by default.

        Raises:
            ConnectionError: not connected.
            InvalidModelError: not a model that can run there.
            InvalidInputError: shape or type are not the model's.
        """
        client = self._connected()
        expected = _datatype(dtype)
        before = {(other.name, other.version) for other in client.models()}
        uploaded = client.upload_model(model, name=model_name, shape=shape)
        spec = next(iter(client.metadata(uploaded.name, version=uploaded.version).inputs), None)
        if shape is not None and spec is not None and spec.datatype is not expected:
            if (uploaded.name, uploaded.version) not in before:
                client.delete_model(uploaded.name, version=uploaded.version)
            raise InvalidInputError(f"the model's input {spec.name!r} is {spec.datatype}, dtype says {expected}")
        return UploadModelResponse(model_id=uploaded.name, digest=uploaded.digest, _uploaded=uploaded)

    def run_model(
        self,
        data_list: Any,
        sign: bool = False,  # noqa: FBT001, FBT002, ARG002  # the 0.3 signature; every answer is signed
        *,
        model_id: str | None = None,
    ) -> RunModelResponse:
        """Run a model on a flat list, or anything that `Client.infer` takes.

        Args:
            data_list: the first input's values; a flat list takes the shape given at upload.
            sign: kept for old scripts; every answer is signed.
            model_id: the model uploaded last by default, whoever uploaded it.

        Raises:
            ConnectionError: not connected.
            ModelNotFoundError: no model was uploaded.
            InvalidInputError: the values do not fit; says what was expected.
        """
        result = self._connected().infer(model_id, data_list)
        return RunModelResponse(output=result.outputs[0].as_flat(), _result=result)

    def delete_model(self, model_id: str) -> None:
        """Delete a model.

        Raises:
            ModelNotFoundError: there is none of that name.
        """
        self._connected().delete_model(model_id)

    def is_connected(self) -> bool:
        """Whether `connect_server` succeeded and `close_connection` was not called since."""
        return self._client is not None

    def close_connection(self) -> None:
        """End the connection; calls raise a `ConnectionError` afterwards."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        if self._client is None:
            raise ConnectionLostError("Not connected to the server", hint="call connect_server first")
        return self._client


def _names_port(addr: str) -> bool:
    rest = addr.split("://", 1)[-1].rstrip("/")
    return rest.rsplit("]", 1)[-1].count(":") == 1


def _datatype(dtype: ModelDatumType) -> Datatype:
    """Its name in the protocol; the number alone is accepted too."""
    try:
        return _DATATYPES[ModelDatumType(dtype)]
    except ValueError:
        raise InvalidInputError(
            f"{dtype!r} is no ModelDatumType", hint=f"one of {', '.join(ModelDatumType.__members__)}"
        ) from None
