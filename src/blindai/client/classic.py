"""`BlindAiClient`: the API of BlindAI 0.3, a thin face over `Client` (docs/guides/classic.md).

What a script of that time relied on still holds: the server keeps what was uploaded, `run_model` without a name means
the model uploaded last (by any client), and a flat list takes the shape given at upload.
Leaves out: the responses (classic_responses.py), and the functions of 0.4 and 0.5 (classic_connect.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.client.classic_responses import RunModelResponse, UploadModelResponse, fill_run, uploaded_response
from blindai.client.classic_types import ModelDatumType, datatype_named
from blindai.client.sync_client import Client
from blindai.errors import ConnectionLostError, InvalidInputError, RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from blindai.client.own_endorsements import Endorsements
    from blindai.client.results import InferResult
    from blindai.endorsements.documents import Source

__all__ = ["AttestationError", "BlindAiClient", "ModelDatumType", "RunModelResponse", "UploadModelResponse"]

AttestationError = RejectedEvidenceError


class BlindAiClient:
    """The client of BlindAI 0.3.

    Args:
        debug_mode: kept for old scripts; it changes nothing.
    """

    def __init__(self, debug_mode: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002  # the 0.3 signature
        self._client: Client | None = None
        self._server_name = DEFAULT_SERVICE

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
            certificate: path of a PEM file: beside all else, TLS has to show this certificate or one that it signed.
            simulation: accept a simulated server, which protects nothing.
            untrusted_port: kept for old scripts; not used.
            attested_port: the server's port.
            api_key: where the server wants to know who asks.
            endorsements: your own, in place of those that the server staples.

        Raises:
            RejectedEvidenceError: the server is not proven to be what the policy accepts.
            EndorsementsUnavailableError: you insist on your own endorsements, and they cannot be had.
            ConnectionError: the server cannot be reached.
            FileNotFoundError: the policy or the certificate file is not there.
            InvalidInputError: the certificate file holds none.
        """
        if policy is not None and not Path(policy).is_file():
            raise FileNotFoundError(f"there is no policy file {os.fspath(policy)!r}")
        url = addr if _names_port(addr) else f"{addr.rstrip('/')}:{attested_port}"
        self.close_connection()
        self._client = Client(
            url,
            policy=None if policy is None or simulation else Path(policy),
            service=server_name,
            insecure_simulation=simulation,
            api_key=api_key or None,  # scripts of the 0.5 line say "" for none
            endorsements=endorsements,
            certificate=certificate,
        )
        self._server_name = server_name

    def upload_model(  # noqa: PLR0917  # the 0.3 signature
        self,
        model: str | os.PathLike[str],
        shape: Sequence[int] | None = None,
        dtype: Any = ModelDatumType.F32,
        dtype_out: Any = ModelDatumType.F32,  # noqa: ARG002  # the model says what it returns
        sign: bool = False,  # noqa: FBT001, FBT002, ARG002  # every answer is signed
        *,
        model_name: str | None = None,
    ) -> UploadModelResponse:
        """Upload an ONNX model; it becomes the one that `run_model` means.

        Args:
            model: the `.onnx` file.
            shape: the shape that a flat list takes; read from the model by default.
            dtype: element type of the input; must be the model's own if a shape is given. A `ModelDatumType` or, as in
                0.5, a numpy or torch dtype or the name of one.
            dtype_out: kept for old scripts; the model's own output type is returned.
            sign: kept for old scripts; every answer is signed.
            model_name: the file's stem by default.

        Raises:
            ConnectionError: not connected.
            InvalidModelError: not a model that can run there.
            InvalidInputError: shape or type are not the model's.
        """
        client = self._connected()
        expected = datatype_named(dtype)
        before = {(other.name, other.version) for other in client.models()}
        uploaded = client.upload_model(model, name=model_name, shape=shape)
        spec = next(iter(client.metadata(uploaded.name, version=uploaded.version).inputs), None)
        if shape is not None and spec is not None and spec.datatype is not expected:
            if (uploaded.name, uploaded.version) not in before:
                client.delete_model(uploaded.name, version=uploaded.version)
            raise InvalidInputError(f"the model's input {spec.name!r} is {spec.datatype}, dtype says {expected}")
        return uploaded_response(uploaded, server_name=self._server_name)

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
        return fill_run(RunModelResponse(server_name=self._server_name), self._infer(model_id, data_list))

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

    def _infer(self, model_id: str | None, inputs: Any) -> InferResult:
        return self._connected().infer(model_id, inputs)

    def _connected(self) -> Client:
        if self._client is None:
            raise ConnectionLostError("Not connected to the server", hint="call connect_server first")
        return self._client


def _names_port(addr: str) -> bool:
    rest = addr.split("://", 1)[-1].rstrip("/")
    return rest.rsplit("]", 1)[-1].count(":") == 1
