"""What a script can tell from the exit code, and a person from the message and its hint."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from cli.processes import COMMAND, SIMULATED, Served, blindai, blindai_ok, served
from onnx import TensorProto, helper

from blindai.client.transport import make_tls_context as client_tls
from blindai.client.transport import parse_server_url
from blindai.server.tls_identity import make_tls_identity
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network

ATTESTATION = "/.well-known/blindai/attestation"
NOWHERE = "https://127.0.0.1:1"
POLICY = """
version = 1
insecure_simulation = true
operator = { skip = "nobody operates a test" }
release = { skip = "a test runs what is here" }
runtime = { skip = "nothing is asked" }
[level]
minimum = "fresh"
[tee.simulation]
"""


# 5: policy


@pytest.mark.parametrize("verb", [["attest"], ["models"], ["infer", "m", "-"], ["delete", "m"]])
def test_a_simulated_server_is_refused_unless_it_was_asked_for(server: Served, verb: list[str]) -> None:
    name, *rest = verb
    ended = blindai(name, server.url, *rest, stdin="[1]")
    assert ended.code == 5
    assert "error: simulation.not_accepted: " in ended.err
    assert "hint: " in ended.err
    assert "--insecure-simulation" in ended.err
    assert ("✗ simulation.not_accepted: " in ended.out) is (name == "attest")
    assert name == "attest" or ended.out == ""


def test_a_refusal_for_scripts_is_one_json_document(server: Served) -> None:
    ended = blindai("attest", server.url, "--json")
    assert (ended.code, ended.err) == (5, "")
    told = json.loads(ended.out)
    assert (told["code"], told["finding"]) == ("policy_violation", "simulation.not_accepted")
    assert told["hint"]
    assert told["findings"][-1]["outcome"] == "failed"


def test_another_service_than_the_one_asked_for(server: Served) -> None:
    ended = blindai("attest", server.url, SIMULATED, "--service", "payroll")
    assert ended.code == 5
    assert "error: expected the service 'payroll', found 'blindai-srv'\nhint: " in ended.err


def test_another_measurement_than_the_policys(server: Served, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY + f'measurement = ["{"5a" * 32}"]\n')
    ended = blindai("attest", server.url, "--policy", policy)
    assert ended.code == 5
    assert "✗ simulation.measurement: expected " in ended.out
    assert "simulation.measurement" in ended.err


# 2: usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["atest"], "No such command 'atest'"),
        (["attest"], "Missing argument 'URL'"),
        (["attest", "ftp://host/path"], "not a server's address"),
        (["attest", NOWHERE, "--require-level", "high"], "'high' is not one of 'fresh', 'cached'"),
        (["attest", NOWHERE, SIMULATED, "--policy", "strict"], "choose one of --policy and --insecure-simulation"),
        (["attest", NOWHERE, "--policy", "missing.toml"], "missing.toml: cannot be read as a policy"),
        (["upload", NOWHERE, "missing.onnx", SIMULATED], "missing.onnx"),
        (["infer", NOWHERE, "m", "missing.npy", SIMULATED], "missing.npy: No such file or directory"),
        (["infer", NOWHERE, "m", "rows.csv", SIMULATED], "ends in none of .npy, .npz, .json"),
        (["verify", "missing.json", SIMULATED], "missing.json: No such file or directory"),
        (["verify", "/", SIMULATED], "/: Is a directory"),
        (["verify", "missing.json", SIMULATED, "--at", "soon"], "an ISO time such as"),
        (["serve", "--port", "0"], "nothing here attests"),
        (["serve", "--simulation", "--config", "missing.toml"], "cannot read missing.toml"),
        (["serve", "--simulation", "--log-level", "loud"], "debug, info, warning or error, not 'loud'"),
    ],
)
def test_usage(arguments: list[str], said: str, server: Served) -> None:
    ended = blindai(*(server.url if argument == NOWHERE else argument for argument in arguments))
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert said in ended.err


def test_serving_without_a_tee_says_what_to_do() -> None:
    ended = blindai("serve")
    assert ended.code == 2
    assert "`blindai serve --simulation` runs anywhere, and protects nothing" in ended.err.partition("hint: ")[2]


def test_an_unknown_setting_is_refused_and_the_known_ones_are_listed(tmp_path: Path) -> None:
    config = tmp_path / "blindai.toml"
    config.write_text("simulation = true\nmax_modles = 3\n")
    ended = blindai("serve", "--check-config", "--config", config)
    assert (ended.code, ended.out) == (2, "")
    assert "unknown setting 'max_modles'" in ended.err
    assert "max_models" in ended.err.partition("hint: ")[2]


def test_a_policy_with_a_mistake_is_refused_by_file_and_line(server: Served, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    text = POLICY + "measurment = []\n"
    policy.write_text(text)
    ended = blindai("attest", server.url, "--policy", policy, "--json")
    assert ended.code == 2
    told = json.loads(ended.out)
    assert told["code"] == "invalid_policy"
    assert f"{policy}, line {len(text.splitlines())}: " in told["error"]


# 1: failed for another reason


def test_nobody_listens() -> None:
    ended = blindai("models", NOWHERE, SIMULATED)
    assert (ended.code, ended.out) == (1, "")
    assert f"error: cannot connect to {NOWHERE}" in ended.err
    assert "hint: is the server running?" in ended.err


def test_no_such_model(server: Served) -> None:
    ended = blindai("infer", server.url, "absent", "-", SIMULATED, "--json", stdin="[1]")
    assert ended.code == 1
    assert json.loads(ended.out)["code"] == "model_not_found"


def test_inputs_that_do_not_fit(server: Served, doubling: str) -> None:
    ended = blindai("infer", server.url, doubling, "-", SIMULATED, stdin="[[1, 2]]")
    assert (ended.code, ended.out) == (1, "")
    assert "[-1, 3]" in ended.err


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"{"), ("b.json", b"\xff\xfe\xfd"), ("c.npy", b"PK\x03\x04"), ("d.npz", b"\x80\x04N."), ("e.npy", b"")],
)
def test_a_data_file_that_is_not_what_its_ending_says(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    ended = blindai("infer", NOWHERE, "m", tmp_path / name, SIMULATED)
    assert ended.code == 1
    assert ended.err.startswith(("error: the input is not JSON", f"error: {name} is not a "))


def test_a_port_that_is_taken(server: Served) -> None:
    port = parse_server_url(server.url).port
    ended = blindai("serve", "--simulation", "--port", str(port))
    assert (ended.code, ended.out) == (1, "")
    assert f"error: cannot serve on 127.0.0.1 port {port}: Address already in use" in ended.err


# The server goes away


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that counts as far as its input says."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Add", ["sum", "sum"], ["sum_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("Constant", [], ["on0"], value=helper.make_tensor("on0", TensorProto.BOOL, [], [True])),
        helper.make_node("Constant", [], ["sum0"], value=helper.make_tensor("sum0", TensorProto.FLOAT, [], [0.0])),
        helper.make_node("Loop", ["count", "on0", "sum0"], ["y"], body=body),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("count", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), str(path))
    return path


def cpu_ticks(pids: list[int]) -> int:
    """How long processes have computed, in user mode."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(fields[11]) for fields in stats)


def test_a_server_that_is_killed_at_work(endless: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "count.npy", np.int64(10**12))
    with served(tmp_path / "served") as victim:
        blindai_ok("upload", victim.url, endless, SIMULATED)
        idle = cpu_ticks(victim.processes()[1:])
        waiting = subprocess.Popen(
            [*COMMAND, "infer", victim.url, "endless", str(tmp_path / "count.npy"), SIMULATED],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with waiting:
            until = time.monotonic() + 30
            while cpu_ticks(victim.processes()[1:]) < idle + 200:  # 2 s: started, loaded, and counting
                assert time.monotonic() < until
                time.sleep(0.05)
            victim.kill()
            out, err = waiting.communicate(timeout=30)
        afterwards = blindai("models", victim.url, SIMULATED)
    assert (waiting.returncode, out) == (1, "")
    assert "Traceback" not in err
    assert "error: " in err
    assert afterwards.code == 1
    assert "error: cannot connect to " in afterwards.err


# 4 and 6: a path that plays with the evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Impostor:
    """Answers every question for evidence with the same bytes, and holds no keys."""

    evidence: bytes

    @contextlib.contextmanager
    def listen(self) -> Iterator[str]:
        """Yield its URL."""
        evidence = self.evidence

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                found = self.path == ATTESTATION
                self.send_response(200 if found else 421)
                self.send_header("content-length", str(len(evidence) if found else 0))
                self.end_headers()
                if found:
                    self.wfile.write(evidence)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
            listener.socket = make_tls_identity("127.0.0.1").context().wrap_socket(listener.socket, server_side=True)
            thread = threading.Thread(target=listener.serve_forever)
            thread.start()
            try:
                yield f"https://127.0.0.1:{listener.server_port}"
            finally:
                listener.shutdown()
                thread.join()


def real_evidence(server: Served, *, nonce: bytes | None) -> bytes:
    url = parse_server_url(server.url)
    connection = http.client.HTTPSConnection(url.host, url.port, timeout=20, context=client_tls())
    body = None if nonce is None else json.dumps({"nonce": base64url_encode(nonce)})
    connection.request("GET" if nonce is None else "POST", ATTESTATION, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    document = answer.read()
    connection.close()
    assert answer.status == 200
    return document


def test_evidence_that_was_made_for_somebody_else(server: Served) -> None:
    with Impostor(evidence=real_evidence(server, nonce=bytes(32))).listen() as url:
        ended = blindai("attest", url, SIMULATED)
    assert ended.code == 4
    assert "✗ binding.nonce: " in ended.out
    assert "hint: " in ended.err


def test_cached_evidence_where_fresh_is_required(server: Served) -> None:
    with Impostor(evidence=real_evidence(server, nonce=None)).listen() as url:
        required = blindai("attest", url, SIMULATED, "--require-level", "fresh")
        accepted = blindai("attest", url, SIMULATED, "--require-level", "cached")
    assert (required.code, accepted.code) == (4, 0)
    assert "✗ binding.kind: " in required.out


def test_evidence_of_keys_that_the_server_does_not_hold(server: Served) -> None:
    with Impostor(evidence=real_evidence(server, nonce=None)).listen() as url:
        ended = blindai("models", url, SIMULATED, "--require-level", "cached", "--json")
    assert ended.code == 4
    assert json.loads(ended.out)["code"] == "peer_key_mismatch"


def test_evidence_that_is_malformed_or_not_authentic(server: Served) -> None:
    document = json.loads(real_evidence(server, nonce=None))
    evidence = document["evidence"][0]["evidence"]
    document["evidence"][0]["evidence"] = evidence[:-4] + ("AAAA" if evidence[-4:] != "AAAA" else "BBBB")
    for shown, error in ((b"{}", "malformed_evidence"), (json.dumps(document).encode(), "unauthentic_evidence")):
        with Impostor(evidence=shown).listen() as url:
            ended = blindai("attest", url, SIMULATED, "--require-level", "cached", "--json")
        assert (ended.code, json.loads(ended.out)["code"]) == (6, error)
