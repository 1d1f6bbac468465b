"""`AsyncClient`: the asyncio face of the flows; the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from blindai.client import flows
from blindai.client.access_control import AsyncAccessControl
from blindai.client.attest_flow import ATTESTATION_PATH, AttestedMeanwhileError, Flow, attest
from blindai.client.attestation_view import Attestation
from blindai.client.credential import credential_source
from blindai.client.http_async import AsyncTransport
from blindai.client.options import make_connection, model_files, progress_of, server_url, without_keys
from blindai.client.raw_flow import send_raw
from blindai.client.sync_client import MAX_CONCURRENT
from blindai.client.transport import HttpRequest
from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from blindai.attestation.policy import Policy
    from blindai.client.exchange_flow import SealedRequest
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.raw_flow import RawAnswer
    from blindai.client.results import InferResult, ModelInfo, UploadedModel
    from blindai.client.transport import HttpResponse
    from blindai.endorsements.documents import Source
    from blindai.oip.rest import ModelMetadata

T = TypeVar("T")


class AsyncClient:
    """A verified connection to one server, for asyncio; the arguments are those of `Client`.

    Enter it with `async with`, or call `connect` first: that attests the server.
    """

    def __init__(  # noqa: PLR0913  # a choice each, by keyword
        self,
        url: str,
        *,
        policy: str | Path | Policy | None = None,
        service: str = "blindai-srv",
        level: str | None = None,
        transport: str = "sealed",
        insecure_simulation: bool = False,
        sessions: bool = True,
        padding: bool = True,
        receipts: bool = True,
        timeout_s: float = 120.0,
        api_key: str | None = None,
        token: str | Callable[[], str] | None = None,
        endorsements: Endorsements | Source | None = None,
    ) -> None:
        self._connection = make_connection(
            policy,
            insecure_simulation=insecure_simulation,
            service=service,
            level=level,
            transport=transport,
            sessions=sessions,
            padding=padding,
            receipts=receipts,
            timeout_s=timeout_s,
            credential=credential_source(api_key, token),
            endorsements=endorsements,
        )
        self._transport = AsyncTransport(server_url(url, transport))
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._attesting = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> Self:
        """Attest the server; raises as `Client` does."""
        if self._connection.living_keyset() is None:
            await self._run(attest(self._connection))
        return self

    async def close(self) -> None:
        """Close the connections and forget keys and session; calls raise afterwards."""
        self._closed = True
        self._connection = without_keys(self._connection)
        await self._transport.close()

    @property
    def attestation(self) -> Attestation:
        """What was verified about the server last.

        Raises:
            ConnectionLostError: nothing was verified yet, or the keys have ended: call `connect`; or it is closed.
        """
        self._require_open()
        keyset = self._connection.living_keyset()
        if keyset is None:
            raise ConnectionLostError("no living attestation", hint="await client.connect() first")
        return Attestation(keyset)

    async def upload_model(
        self,
        model: str | os.PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        data_files: Sequence[str | os.PathLike[str]] | None = None,
        shape: Sequence[int] | None = None,
        load: bool = True,
        progress: flows.Progress | bool | None = None,
    ) -> UploadedModel:
        """As `Client.upload_model`."""
        files = model_files(model, name=name, version=version, data_files=data_files, shape=shape, load=load)
        with progress_of(progress, files) as report:
            return await self._run(flows.upload_model(self._connection, files, report))

    async def load_model(
        self, name: str, *, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """As `Client.load_model`."""
        await self._run(flows.load_model(self._connection, name, config, files or {}))

    async def infer(
        self, model: str | None, inputs: Any, *, version: str | None = None, outputs: Sequence[str] = ()
    ) -> InferResult:
        """As `Client.infer`."""
        return await self._run(flows.infer(self._connection, model, inputs, version=version, outputs=tuple(outputs)))

    async def metadata(self, model: str | None = None, *, version: str | None = None) -> ModelMetadata:
        """As `Client.metadata`."""
        return await self._run(flows.read_metadata(self._connection, model, version))

    async def models(self) -> tuple[ModelInfo, ...]:
        """As `Client.models`."""
        return await self._run(flows.list_models(self._connection))

    async def delete_model(self, model: str, *, version: str | None = None) -> int:
        """As `Client.delete_model`."""
        return await self._run(flows.delete_model(self._connection, model, version))

    async def send_raw(self, request: SealedRequest) -> RawAnswer:
        """One request of the Open Inference Protocol as it stands, sealed; the local proxy's way.

        Raises:
            BlindAIError: no answer that verifies; a refusal by the server itself is an answer.
        """
        return await self._run(send_raw(self._connection, request))

    @property
    def access(self) -> AsyncAccessControl:
        """Keys, revoked tokens and shared models of this client's tenant."""
        return AsyncAccessControl(self._connection, self._run)

    def _require_open(self) -> None:
        if self._closed:
            raise ConnectionLostError("this client is closed", hint="open another with AsyncClient(url)")

    async def _run(self, flow: Flow[T]) -> T:
        """Drive a flow: the only place where the async client waits for the network."""
        self._require_open()
        async with self._slots:
            asked, waited = _resume(flow, None), False
            while isinstance(asked, HttpRequest):
                if asked.path != ATTESTATION_PATH:
                    asked = _resume(flow, await self._send(asked))
                elif waited or not self._attesting.locked():
                    async with contextlib.nullcontext() if waited else self._attesting:
                        asked = await self._judge(flow, await self._send(asked))
                else:
                    async with self._attesting:
                        waited = True
                    asked = _resume(flow, AttestedMeanwhileError())
            return asked.result

    async def _judge(self, flow: Flow[T], outcome: HttpResponse | BaseException) -> HttpRequest | _Ended[T]:
        """Hand a flow an attestation; it may have to fetch endorsements, for which nobody else shall wait."""
        if self._connection.settings.endorsements is None or isinstance(outcome, BaseException):
            return _resume(flow, outcome)
        return await asyncio.to_thread(_resume, flow, outcome)

    async def _send(self, request: HttpRequest) -> HttpResponse | BaseException:
        try:
            return await self._transport.send(request)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the flow's to handle
            return error


@dataclass(frozen=True, slots=True)
class _Ended(Generic[T]):
    """What a flow returned: no thread can hand over a StopIteration."""

    result: T


def _resume(flow: Flow[T], outcome: HttpResponse | BaseException | None) -> HttpRequest | _Ended[T]:
    """Hand a flow the answer, the failure, or nothing to begin with; returns what it asks for next, or its result."""
    try:
        if outcome is None:
            return next(flow)
        return flow.throw(outcome) if isinstance(outcome, BaseException) else flow.send(outcome)
    except StopIteration as done:
        return _Ended(done.value)
