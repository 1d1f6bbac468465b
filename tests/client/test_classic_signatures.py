"""The calls of 0.3 to 0.5 in the order and with the defaults that were published: scripts pass them by position."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from blindai.client import (
    BlindAiClient,
    BlindAiConnection,
    ModelDatumType,
    RunModelResponse,
    UploadModelResponse,
    connect,
)

if TYPE_CHECKING:
    from collections.abc import Callable

F32 = ModelDatumType.F32
SERVER = {
    "addr": ...,
    "server_name": "blindai-srv",
    "policy": None,
    "certificate": None,
    "simulation": False,
    "untrusted_port": 50052,
    "attested_port": 50051,
}
BELIEVED = {
    "policy_file": None,
    "policy": None,
    "validate_quote": True,
    "enclave_signing_key": None,
    "allow_simulation_mode": False,
}
PUBLISHED: dict[Callable[..., Any], dict[str, Any]] = {
    BlindAiClient.__init__: {"debug_mode": False},
    BlindAiClient.connect_server: SERVER,
    BlindAiClient.upload_model: {"model": ..., "shape": None, "dtype": F32, "dtype_out": F32, "sign": False},
    BlindAiClient.run_model: {"data_list": ..., "sign": False},
    UploadModelResponse.validate: {"model_hash": ..., **BELIEVED},
    RunModelResponse.validate: {"data_list": ..., **BELIEVED},
    RunModelResponse.save_to_file: {"path": ...},
    RunModelResponse.load_from_file: {"path": ...},
    RunModelResponse.load_from_bytes: {"b": ...},
    connect: {**SERVER, "debug_mode": False, "api_key": None},
    BlindAiConnection.run_model: {"model_id": ..., "data_list": ..., "sign": False},
    BlindAiConnection.predict: {"model_id": ..., "tensors": ..., "dtype": None, "shape": None, "sign": False},
    BlindAiConnection.delete_model: {"model_id": ...},
}


@pytest.mark.parametrize("call", PUBLISHED, ids=lambda call: call.__qualname__)
def test_a_call_takes_what_it_took(call: Callable[..., Any]) -> None:
    parameters = [
        parameter
        for parameter in inspect.signature(call).parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    ]
    found = {one.name: ... if one.default is inspect.Parameter.empty else one.default for one in parameters}
    assert list(found.items()) == list(PUBLISHED[call].items())
