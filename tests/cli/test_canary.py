"""What is random and secret is nowhere where an operator can look, and is found where it lies in clear.

The operator holds the path (a relay that ends TLS), the server's log at its most talkative, every file that the server
can write, and the names, arguments and environment of its processes.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import Served, served
from e2e.tiny_models import save
from onnx import TensorProto, helper, numpy_helper

import blindai
from blindai.cli.operator_view import RecordingRelay, Secrets
from blindai.client.transport import make_tls_context, parse_server_url
from blindai.errors import BlindAIError, InvalidInputError, InvalidModelError, ModelNotFoundError
from blindai.server.tls_identity import make_tls_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Markers that stand nowhere else in the world, one for each place where users put what is theirs."""

    name: str
    version: str
    text: bytes
    numbers: np.ndarray[tuple[int], np.dtype[np.float32]]
    weights: bytes
    label: bytes

    @classmethod
    def hatch(cls) -> Canary:
        """Draw all of them."""
        return cls(
            name=f"tumour-{secrets.token_hex(16)}",
            version=f"v{secrets.token_hex(12)}",
            text=secrets.token_hex(32).encode(),  # 32 random bytes, in letters that a string tensor holds
            numbers=np.frombuffer(os.urandom(32), np.uint32).astype(np.float32) / np.float32(2**32),
            weights=os.urandom(32),
            label=f"malignant-{secrets.token_hex(32)}".encode(),
        )

    def markers(self) -> list[bytes]:
        """Each marker as it is."""
        return [
            self.name.encode(), self.version.encode(), self.text, self.numbers.tobytes(), self.weights, self.label,
        ]  # fmt: skip

    def disguises(self) -> list[bytes]:
        """Each as a log line, a URL or a JSON file might hold it: hexadecimal, base64 at each offset, decimal."""
        shifted = [base64.b64encode(bytes(shift) + one)[4:-4] for one in self.markers() for shift in range(3)]
        numerals = [repr(float(number)).encode() for number in self.numbers]
        return [*(one.hex().encode() for one in self.markers()), *shifted, *numerals]

    def secrets(self) -> Secrets:
        """All that is searched for."""
        return Secrets.of([*self.markers(), *self.disguises()])

    def model(self, path: Path) -> Path:
        """Y = x + weights, the text as it came, and a label; the weights are 32 random bytes, the label a constant."""
        weights = numpy_helper.from_array(np.frombuffer(self.weights, np.uint8), "w")
        label = numpy_helper.from_array(np.array([self.label], object), "label")
        nodes = [
            helper.make_node("Cast", ["w"], ["wf"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["wf", "shape"], ["w4"]),
            helper.make_node("ReduceSum", ["w4", "axes"], ["w8"], keepdims=0),
            helper.make_node("Add", ["x", "w8"], ["y"]),
            helper.make_node("Identity", ["text"], ["echo"]),
            helper.make_node("Constant", [], ["diagnosis"], value=label),
        ]
        inputs = {"x": (TensorProto.FLOAT, [8]), "text": (TensorProto.STRING, [1])}
        outputs = {
            "y": (TensorProto.FLOAT, [8]), "echo": (TensorProto.STRING, [1]), "diagnosis": (TensorProto.STRING, [1]),
        }  # fmt: skip
        shapes = [numpy_helper.from_array(np.array(value), name) for name, value in (("shape", [8, 4]), ("axes", [1]))]
        return save(path, nodes, inputs=inputs, outputs=outputs, initialisers=[weights, *shapes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A server behind a relay, both still running, after everything has happened that a user does."""

    canary: Canary
    server: Served
    relay: RecordingRelay


def use_everything(url: str, canary: Canary, model: Path, *, transport: str = "sealed") -> None:
    """Every call of a client, the failing ones too: an error must not tell more than an answer."""
    inputs = {"x": canary.numbers, "text": [canary.text]}
    with blindai.connect(url, insecure_simulation=True, transport=transport) as client:
        client.upload_model(model, name=canary.name, version=canary.version)
        result = client.infer(canary.name, inputs)
        assert result["diagnosis"][0] == canary.label
        assert result["echo"][0] == canary.text
        assert any(listed.name == canary.name for listed in client.models())
        client.metadata(canary.name)
        with pytest.raises(ModelNotFoundError):
            client.infer(f"absent-{canary.name}", inputs)
        with pytest.raises(BlindAIError):
            client.upload_model(model, name=canary.name, version=canary.version, shape=[3, 3, 3])
        with pytest.raises(InvalidInputError):
            client.infer(canary.name, {"x": canary.numbers[:3], "text": [canary.text]})
        broken = model.with_name("broken.onnx")
        broken.write_bytes(canary.weights + canary.text)
        with pytest.raises(InvalidModelError):
            client.upload_model(broken, name=canary.name)
        client.delete_model(canary.name)
        client.upload_model(model, name=canary.name)
        client.infer(canary.name, inputs)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The whole play, before the curtain falls: models are stored, their processes live."""
    folder, canary = tmp_path_factory.mktemp("canary"), Canary.hatch()
    (folder / "owner").mkdir()
    with (
        served(folder / "served") as server,
        RecordingRelay(parse_server_url(server.url), make_tls_identity("127.0.0.1").context()) as relay,
    ):
        model = canary.model(folder / "owner" / "model.onnx")
        use_everything(
            server.url, canary, model, transport="tls"
        )  # past the recording, which that door does not survive
        use_everything(relay.url, canary, model)
        yield Scene(canary=canary, server=server, relay=relay)


def test_the_path_reads_nothing(scene: Scene, tell: Callable[[str], None]) -> None:
    recording = bytes(scene.relay.recording)
    tell(f"{len(scene.canary.secrets().pieces)} pieces, {len(recording):,} bytes recorded")
    assert recording.count(b"POST /v1/sealed") >= 10  # TLS is off, and every call went this way
    assert scene.canary.secrets().found_in(recording) == 0


def test_the_log_says_nothing(scene: Scene) -> None:
    log = scene.server.log.read_bytes()
    assert log
    assert scene.canary.secrets().found_in(log) == 0


def test_the_metrics_count_and_say_nothing(scene: Scene) -> None:
    at = scene.server.metrics_url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(at[0], timeout=20)
    connection.request("GET", f"/{at[2]}")
    shown = connection.getresponse().read()
    connection.close()
    for door in (b"sealed", b"tls"):
        counted = re.search(rb'blindai_requests_total{door="%b",outcome="ok"} (\S+)' % door, shown)
        assert counted is not None
        assert float(counted[1]) >= 5
    assert scene.canary.secrets().found_in(shown) == 0


def test_no_file_of_the_server_holds_or_is_named_anything(scene: Scene) -> None:
    files = [path for path in scene.server.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in (scene.server.folder / "data").rglob("*") if path.is_file()) > 500
    assert len(files) >= 2  # the log, and a model
    assert scene.canary.secrets().found_under(scene.server.folder) == 0


def test_no_process_shows_anything(scene: Scene) -> None:
    processes = scene.server.processes()
    assert len(processes) >= 2  # the server, and a model's own
    shown = bytearray()
    for process in processes:
        folder = Path(f"/proc/{process}")
        shown += (folder / "cmdline").read_bytes() + (folder / "comm").read_bytes()
        if os.geteuid() == 0:
            shown += (folder / "environ").read_bytes()
            shown += "\n".join(str(path.readlink()) for path in (folder / "fd").iterdir()).encode()
        else:  # it forbids dumps, so its own user cannot look into it
            with pytest.raises(PermissionError):
                (folder / "environ").read_bytes()
    assert b"serve" in shown
    assert scene.canary.secrets().found_in(shown) == 0


def test_the_search_finds_each_marker_where_it_is_in_clear(scene: Scene, tmp_path: Path) -> None:
    canary, relay = scene.canary, scene.relay
    before = len(relay.recording)
    at = parse_server_url(relay.url)
    connection = http.client.HTTPSConnection(at.host, at.port, timeout=20, context=make_tls_context())
    clear = b"\n".join(canary.markers())
    connection.request("POST", "/v1/sealed", clear, {"Content-Type": "application/vnd.blindai.sealed"})
    status = connection.getresponse().status
    connection.close()
    assert status == 400
    (tmp_path / "clear").mkdir()
    (tmp_path / "clear" / "bodies.bin").write_bytes(clear)
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / canary.name).touch()
    for marker in canary.markers():
        one = Secrets.of([marker])
        assert one.found_in(relay.recording[before:]) == len(one.pieces)
        assert one.found_under(tmp_path / "clear") == len(one.pieces)
    assert Secrets.of([canary.name.encode()]).found_under(tmp_path / "named") > 0
    for disguise in canary.disguises():
        assert canary.secrets().found_in(b"2026-01-01 INFO " + disguise + b"\n") > 0
