"""`Client`: the synchronous face of the flows."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from blindai.client import flows
from blindai.client.access_control import AccessControl
from blindai.client.attest_flow import ATTESTATION_PATH, AttestedMeanwhileError, Flow, attest
from blindai.client.attestation_view import Attestation
from blindai.client.credential import credential_source
from blindai.client.http_sync import SyncTransport
from blindai.client.options import make_connection, model_files, progress_of, server_url, without_keys
from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from blindai.attestation.policy import Policy
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.results import InferResult, ModelInfo, UploadedModel
    from blindai.client.transport import HttpRequest
    from blindai.endorsements.documents import Source
    from blindai.oip.rest import ModelMetadata

T = TypeVar("T")
MAX_CONCURRENT = 512


class Client:
    """A verified connection to one server. Thread-safe; after a fork the child attests anew.

    Args:
        url: `https://host:port`, `host:port` or `host` (port 50051). The certificate proves nothing and is not
            checked: the attested sealed messages are what protects.
        policy: what to accept: a policy file, the name of a preset, or a `Policy`. None means the preset `strict`,
            which accepts nothing without reference values.
        service: the service name that the keyset must carry.
        level: `fresh` (keys made for this client's nonce; the default) or `cached`.
        transport: `sealed`, or `tls` to talk in clear inside TLS with an attested key: faster, without receipts, and
            never better than `pinned-tls`, since that key lives as long as the server.
        insecure_simulation: accept a simulated server, which protects nothing.
        sessions: seal many requests under one encapsulation; False seals each on its own, which costs more.
        padding: hide the size of bodies; False shows it to the path, and in the receipt.
        receipts: have the enclave sign each answer; False saves both ends most of a small request's cost, and leaves
            `receipt`, `proof()` and `opening()` of a result to raise `InvalidReceiptError`.
        timeout_s: patience with each step on the network, in seconds.
        api_key: where the server wants to know who asks; only the enclave reads it.
        token: instead of a key: a signed token, or a callable that gives a fresh one whenever one is sent.
        endorsements: insist on your own vendor certificates, revocation lists and collateral, in place of those that
            the server staples; None judges by the stapled ones. An opened one serves several clients.

    Raises:
        RejectedEvidenceError: the server is not proven to be what the policy accepts; nothing was sent.
        EndorsementsUnavailableError: you insist on your own endorsements, and they cannot be had; nothing was sent.
        ChannelError: no connection, another service or operator, or keys that have ended.
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
        self._transport = SyncTransport(server_url(url, transport))
        self._closed = False
        self._start_process()
        try:
            self._run(attest(self._connection))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and forget keys and session; calls raise afterwards."""
        self._closed = True
        self._connection = without_keys(self._connection)
        self._transport.close()

    @property
    def attestation(self) -> Attestation:
        """What was verified about the server; attests again if the keys have ended."""
        self._require_open()
        keyset = self._connection.living_keyset() or self._run(attest(self._connection))
        return Attestation(keyset)

    def upload_model(  # each is a choice that an uploader may have, all but the first by keyword
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
        """Upload an ONNX model; only the enclave ever holds it in clear.

        Args:
            model: the `.onnx` file.
            name: the model's name; the file's stem by default.
            version: the server counts by default.
            data_files: external data and pipeline; `model.onnx.data` and `model.onnx.pipeline.json` beside the model
                are found by themselves.
            shape: the shape that a flat list for the first input takes; read from the model by default.
            load: load it at once, so that a model that cannot run is refused now; False defers that to the first use.
            progress: called with (bytes done, bytes in all); True or None shows a bar on a terminal, False nothing.

        Raises:
            InvalidModelError: not a model that the server can run.
            ModelStoreError: the server does not take it.
        """
        files = model_files(model, name=name, version=version, data_files=data_files, shape=shape, load=load)
        with progress_of(progress, files) as report:
            return self._run(flows.upload_model(self._connection, files, report))

    def load_model(
        self, name: str, *, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Serve one of your models, unloaded or not, as a configuration says.

        Args:
            name: of a model that was uploaded, or whose files come along.
            config: Triton's ModelConfig, in the form of its JSON (docs/guides/model-repository.md); None leaves it.
            files: label files by name, and files of versions as `VERSION/NAME`. `upload_model` streams large ones, and
                checks their digest.

        Raises:
            InvalidInputError: the configuration is none, or one that the server cannot honour.
            InvalidModelError: it is not about this model.
            ModelNotFoundError: the server has no such model of yours.
        """
        self._run(flows.load_model(self._connection, name, config, files or {}))

    def infer(
        self, model: str | None, inputs: Any, *, version: str | None = None, outputs: Sequence[str] = ()
    ) -> InferResult:
        """Run a model on data that only the enclave sees.

        Args:
            model: a name, `name@sha256:…`, or None for the model uploaded last.
            inputs: an array, a (flat or nested) list or a scalar; a list of those, one for each input; or a dict by
                input name. Any of numpy, torch and plain Python. For a model with a pipeline: text, or the bytes,
                open file or path of a picture or sound; or a list of them.
            version: the one uploaded last by default.
            outputs: names of the outputs to return; all by default.

        Raises:
            InvalidInputError: the inputs do not fit the model.
            ModelNotFoundError: the server has no such model.
            ChannelError: the connection or the sealed messages failed.
        """
        return self._run(flows.infer(self._connection, model, inputs, version=version, outputs=tuple(outputs)))

    def metadata(self, model: str | None = None, *, version: str | None = None) -> ModelMetadata:
        """Inputs, outputs, versions and digest of a model; of the one uploaded last without a name."""
        return self._run(flows.read_metadata(self._connection, model, version))

    def models(self) -> tuple[ModelInfo, ...]:
        """Every model on the server, the one uploaded last at the end."""
        return self._run(flows.list_models(self._connection))

    def delete_model(self, model: str, *, version: str | None = None) -> int:
        """Delete a version, or every version of a name; returns how many were deleted."""
        return self._run(flows.delete_model(self._connection, model, version))

    @property
    def access(self) -> AccessControl:
        """Keys, revoked tokens and shared models of this client's tenant."""
        return AccessControl(self._connection, self._run)

    def _require_open(self) -> None:
        if self._closed:
            raise ConnectionLostError("this client is closed", hint="open another with blindai.connect(url)")

    def _start_process(self) -> None:
        """Locks belong to one process: in a forked child, one that a thread of the parent held stays held forever."""
        self._pid = os.getpid()
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._attesting = threading.Lock()

    def _run(self, flow: Flow[T]) -> T:
        """Drive a flow: the only place where the sync client waits for the network."""
        self._require_open()
        if os.getpid() != self._pid:
            self._start_process()
        with self._slots:
            try:
                request, waited = next(flow), False
                while True:
                    if request.path != ATTESTATION_PATH or waited:
                        request = self._step(flow, request)
                    elif self._attesting.acquire(blocking=False):
                        try:
                            request = self._step(flow, request)
                        finally:
                            self._attesting.release()
                    else:
                        with self._attesting:
                            waited = True
                        request = flow.throw(AttestedMeanwhileError())
            except StopIteration as done:
                result: T = done.value
                return result

    def _step(self, flow: Flow[T], request: HttpRequest) -> HttpRequest:
        """Send what a flow asks for, and hand it the answer; returns what it asks for next."""
        try:
            response = self._transport.send(request)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the flow's to handle
            return flow.throw(error)
        return flow.send(response)
