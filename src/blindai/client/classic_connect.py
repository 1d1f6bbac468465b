"""`blindai.client.connect`: the habits of BlindAI 0.4 and 0.5, over `BlindAiClient` (docs/guides/classic.md).

A connection that is a context manager, models by `model_id`, and `predict`, whose outputs are tensors.
Leaves out: what 0.3 had too (classic.py), and `blindai.core` of 0.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.client.classic import BlindAiClient
from blindai.client.classic_responses import RunModelResponse, fill_run
from blindai.client.classic_types import ModelDatumType, TensorInfo, datatype_named
from blindai.errors import InvalidInputError
from blindai.oip.rest import decode_infer_response
from blindai.oip.tensors import Tensor, tensor_from

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from blindai.client.classic_responses import UploadModelResponse


class PredictResponse(RunModelResponse):
    """What `predict` returns: as `RunModelResponse`, with every output as a tensor."""

    @property
    def output(self) -> list[Tensor]:  # 0.5 gave the same name another meaning
        """The outputs, in the model's order: `Tensor.as_flat()`, `as_numpy()`, `as_torch()`."""
        opening = self.opening
        return list(decode_infer_response(opening.response_body, opening.response_header_length).outputs)


class BlindAiConnection:
    """An open connection, as `connect` returns it; a context manager."""

    def __init__(self, client: BlindAiClient) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls raise a `ConnectionError` afterwards."""
        self._client.close_connection()

    def is_connected(self) -> bool:
        """Whether `close` was not called yet."""
        return self._client.is_connected()

    def upload_model(  # noqa: PLR0913, PLR0917  # the signature of 0.5
        self,
        model: str | os.PathLike[str],
        tensor_inputs: Sequence[TensorInfo | tuple[Sequence[int], Any]] | None = None,
        tensor_outputs: Any = None,  # noqa: ARG002  # the model says what it returns
        shape: Sequence[int] | None = None,
        dtype: Any = ModelDatumType.F32,
        dtype_out: Any = ModelDatumType.F32,
        sign: bool = False,  # noqa: FBT001, FBT002  # the signature of 0.5
        model_name: str | None = None,
        *,
        model_id: str | None = None,
    ) -> UploadModelResponse:
        """Upload an ONNX model; the response's `model_id` names it from then on.

        Args:
            model: the `.onnx` file.
            tensor_inputs: shape and type of each input, as `TensorInfo` or as pairs; the first is held to the model.
            tensor_outputs: kept for old scripts; the model says what it returns.
            shape: as for `BlindAiClient.upload_model`, and so are the rest; instead of `tensor_inputs`.
            dtype: likewise.
            dtype_out: likewise.
            sign: likewise.
            model_name: the file's stem by default.
            model_id: another word for `model_name`.
        """
        if tensor_inputs:
            first = tensor_inputs[0]
            shape, dtype = (first.fact, first.datum_type) if isinstance(first, TensorInfo) else first
        name = model_id if model_id is not None else model_name
        return self._client.upload_model(model, shape, dtype, dtype_out, sign, model_name=name)

    def run_model(
        self,
        model_id: str | None,
        data_list: Any,
        sign: bool = False,  # noqa: FBT001, FBT002  # the signature of 0.4
    ) -> RunModelResponse:
        """Run a model; `.output` is the first output as a flat list, and `BlindAiClient.run_model` says the rest."""
        return self._client.run_model(data_list, sign, model_id=model_id)

    def predict(  # noqa: PLR0917  # the signature of 0.5
        self,
        model_id: str | None,
        tensors: Any,
        dtype: Any = None,
        shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
        sign: bool = False,  # noqa: ARG002, FBT001, FBT002  # likewise; every answer is signed
    ) -> PredictResponse:
        """Run a model on tensors.

        Args:
            model_id: None means the model uploaded last.
            tensors: a numpy array, a torch tensor or a flat list; or a list of those, one for each input.
            dtype: what they are meant as, if not as the model says: one for all, or a list with one for each input.
            shape: of flat lists; a list of shapes where there are more inputs.
            sign: kept for old scripts; every answer is signed.

        Raises:
            ConnectionError: not connected.
            ModelNotFoundError: there is no such model.
            InvalidInputError: the tensors do not fit; says what was expected.
        """
        result = self._client._infer(model_id, _inputs(tensors, dtype, shape))  # noqa: SLF001  # one thing in two files
        return fill_run(PredictResponse(server_name=self._client._server_name), result)  # noqa: SLF001  # likewise

    def delete_model(self, model_id: str) -> None:
        """Delete a model.

        Raises:
            ModelNotFoundError: there is none of that name.
        """
        self._client.delete_model(model_id)


def connect(  # noqa: PLR0913, PLR0917  # the signature of 0.5
    addr: str,
    server_name: str = DEFAULT_SERVICE,
    policy: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    simulation: bool = False,  # noqa: FBT001, FBT002  # likewise
    untrusted_port: int = 50052,
    attested_port: int = 50051,
    debug_mode: bool = False,  # noqa: FBT001, FBT002  # likewise
    api_key: str | None = None,
) -> BlindAiConnection:
    """Verify the server and connect to it, as in 0.4 and 0.5; `blindai.connect` is the API of today.

    The arguments and errors are those of `BlindAiClient.connect_server`.
    """
    client = BlindAiClient(debug_mode)
    client.connect_server(
        addr, server_name, policy, certificate, simulation, untrusted_port, attested_port, api_key=api_key
    )
    return BlindAiConnection(client)


def _inputs(tensors: Any, dtype: Any, shape: Any) -> Any:
    """The tensors in the types and shapes that were given for them."""
    if dtype is None and shape is None:
        return tensors
    if not _are_many(tensors, dtype, shape):
        return _tensor(tensors, dtype, shape)
    count = len(tensors)
    dtypes = list(dtype) if isinstance(dtype, list | tuple) else [dtype] * count
    shapes = [None] * count if shape is None else list(shape) if _nested(shape) else [shape] * count
    if not count == len(dtypes) == len(shapes):
        raise InvalidInputError(f"{count} tensors come with {len(dtypes)} types and {len(shapes)} shapes")
    return [_tensor(*one) for one in zip(tensors, dtypes, shapes, strict=True)]


def _are_many(tensors: Any, dtype: Any, shape: Any) -> bool:
    if not isinstance(tensors, list | tuple):
        return False
    return isinstance(dtype, list | tuple) or _nested(shape) or bool(tensors and hasattr(tensors[0], "shape"))


def _nested(shape: Any) -> bool:
    return shape is not None and len(shape) > 0 and not hasattr(shape[0], "__index__")


def _tensor(value: Any, dtype: Any, shape: Any) -> Tensor:
    return tensor_from(value, name="input", datatype=None if dtype is None else datatype_named(dtype), shape=shape)
