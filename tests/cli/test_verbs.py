"""Each verb as a user meets it: what it prints for people, what for scripts, and on which stream."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cli.processes import SIMULATED, Served, blindai, blindai_ok, run
from e2e.tiny_models import dense, times

import blindai as package

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network

WARNING = "SIMULATION, NOT SECURE"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
VERBS = ("serve", "demo", "attest", "upload", "infer", "models", "delete", "verify", "optimize")
DOUBLED = [[2, 4, 6], [8, 10, 13]]


def as_json(*arguments: str | Path, stdin: str = "") -> Any:
    """A verb's one JSON document; `json.loads` refuses anything beside it."""
    return json.loads(blindai_ok(*arguments, "--json", stdin=stdin).out)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


def test_help_names_every_verb_in_whole_sentences() -> None:
    shown = blindai_ok("--help").out
    assert [verb for verb in VERBS if not re.search(rf"^  {verb} .*\.$", shown, re.MULTILINE)] == []
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("verb", ["attest", "upload", "infer", "models", "delete"])
def test_every_verb_of_the_client_takes_the_same_options(verb: str) -> None:
    shown = blindai_ok(verb, "--help").out
    shared = ("URL", "--policy", "--insecure-simulation", "--service", "--require-level", "--json")
    assert [option for option in shared if option not in shown] == []
    assert shown.startswith(f"Usage: blindai {verb} ")


def test_version() -> None:
    assert blindai_ok("--version").out == f"blindai {package.__version__}\n"


def test_no_verb_is_a_usage_error_that_shows_the_help() -> None:
    ended = blindai()
    assert (ended.code, ended.out) == (2, "")
    assert "verify" in ended.err


def test_attest_shows_every_check_and_why_it_matters(server: Served) -> None:
    ended = blindai_ok("attest", server.url, SIMULATED)
    lines = ended.out.splitlines()
    end = lines.index("")
    checks, (blank, level, *claims) = lines[:end], lines[end:]
    assert len(checks) > 15
    assert [line for line in checks if not re.fullmatch(r"[✓–] [a-z_.]+: .+\. [A-Z].+\.", line)] == []
    assert sum(line.startswith("–") and "skipped (" in line for line in checks) >= 3
    assert (blank, level) == ("", f"level simulated: blindai {package.__version__} as 'blindai-srv'")
    assert claims[0] == "  simulation hardware: none: SIMULATION PROTECTS NOTHING"
    assert re.fullmatch(r"  simulation measurement: [0-9a-f]{64}", claims[1])
    assert WARNING in ended.err


def test_attest_for_scripts(server: Served) -> None:
    told = as_json("attest", server.url, SIMULATED)
    assert (told["level"], told["simulated"], told["service"]) == ("simulated", True, "blindai-srv")
    assert told["software"]["name"] == "blindai"
    assert told["runtime"]["sealing"] == "ephemeral"
    assert told["claims"][0]["tee"] == "simulation"
    assert {finding["outcome"] for finding in told["findings"]} == {"passed", "skipped"}
    assert all(finding["why"] for finding in told["findings"])


def test_cached_evidence_on_request(server: Served) -> None:
    told = as_json("attest", server.url, SIMULATED, "--require-level", "cached")
    kind = next(finding for finding in told["findings"] if finding["code"] == "binding.kind")
    assert kind["found"].startswith("cached")


def test_a_model_from_upload_to_delete(server: Served, tmp_path: Path) -> None:
    model = dense(tmp_path / "whole-path.onnx")
    uploaded = blindai_ok("upload", server.url, model, SIMULATED)
    header, row = uploaded.out.splitlines()
    name, version, digest = row.split()
    assert header.split() == ["name", "version", "digest"]
    assert (name, version) == ("whole-path", "1")
    assert DIGEST.fullmatch(digest)  # whole on its line, so that it can be copied
    assert WARNING in uploaded.err

    again = as_json("upload", server.url, model, SIMULATED, "--name", "whole-path", "--version", "7", "--defer-loading")
    assert again == {"name": "whole-path", "version": "7", "digest": digest}

    listed = [line.split() for line in blindai_ok("models", server.url, SIMULATED).out.splitlines()]
    assert listed[0] == ["name", "version", "bytes", "digest"]
    assert ["whole-path", "1", f"{model.stat().st_size:,}", digest] in listed

    told = as_json("models", server.url, SIMULATED)
    assert {"name": "whole-path", "version": "7", "digest": digest, "size_bytes": model.stat().st_size} in told

    assert blindai_ok("delete", server.url, "whole-path", "--version", "7", SIMULATED).out == "deleted 1 version\n"
    assert as_json("delete", server.url, "whole-path", SIMULATED) == {"deleted": 1}
    assert "whole-path" not in blindai_ok("models", server.url, SIMULATED).out


def test_infer_for_people(server: Served, doubling: str, rows: Path) -> None:
    ended = blindai_ok("infer", server.url, doubling, rows, SIMULATED)
    title, *values = ended.out.splitlines()
    assert title == "y: FP32 [2, 3]"
    assert numbers(" ".join(values)) == [2, 4, 6, 8, 10, 13]
    assert WARNING in ended.err


def test_infer_takes_npy_npz_json_and_stdin(server: Served, doubling: str, rows: Path, tmp_path: Path) -> None:
    array = np.load(rows)
    np.savez(tmp_path / "rows.npz", x=array)
    (tmp_path / "rows.json").write_text(json.dumps({"x": array.tolist()}))
    for given, stdin in (
        (rows, ""),
        (tmp_path / "rows.npz", ""),
        (tmp_path / "rows.json", ""),
        ("-", json.dumps(array.tolist())),
    ):
        told = as_json("infer", server.url, doubling, given, SIMULATED, stdin=stdin)
        assert (told["model_name"], told["model_version"]) == (doubling, "1")
        [output] = told["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 3])
        assert np.array_equal(np.reshape(output["data"], (2, 3)), DOUBLED)


def test_infer_by_digest_and_the_one_uploaded_last(server: Served, tmp_path: Path, rows: Path) -> None:
    model = times(tmp_path / "tripling.onnx", 3.0)
    digest = as_json("upload", server.url, model, SIMULATED)["digest"]
    for reference in (f"tripling@{digest}", "@last"):
        assert as_json("infer", server.url, reference, rows, SIMULATED)["outputs"][0]["data"][0] == 3


def test_what_json_cannot_hold_is_a_string(server: Served, doubling: str) -> None:
    told = as_json("infer", server.url, doubling, "-", SIMULATED, stdin="[[Infinity, NaN, 1.5]]")
    assert told["outputs"][0]["data"] == ["inf", "nan", 3.0]


def test_a_proof_is_said_to_be_written_and_its_opening_is_private(
    server: Served, doubling: str, tmp_path: Path
) -> None:
    proof, opening = tmp_path / "p.json", tmp_path / "o.json"
    ended = blindai_ok(
        "infer", server.url, doubling, "-", SIMULATED, "--proof", proof, "--opening", opening, stdin="[[1, 2, 3]]"
    )
    assert str(proof) not in ended.out
    assert f"wrote {proof}" in ended.err
    assert f"wrote {opening}, which holds the data: keep it private" in ended.err
    assert opening.stat().st_mode & 0o077 == 0


def test_settings_are_checked_without_serving(tmp_path: Path) -> None:
    config = tmp_path / "blindai.toml"
    config.write_text("simulation = true\nport = 0\nmax_models = 3\n")
    assert blindai_ok("serve", "--check-config", "--config", config).out == "the settings are in order\n"


def test_no_escape_sequence_is_written_to_a_pipe(server: Served) -> None:
    ended = blindai_ok("attest", server.url, SIMULATED)
    assert "\x1b" not in ended.out + ended.err


def test_marks_survive_an_encoding_that_lacks_them(server: Served) -> None:
    ended = blindai("attest", server.url, SIMULATED, variables={"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"})
    assert ended.code == 0
    assert "\\u2713 simulation.signature: " in ended.out


def test_an_output_cannot_move_the_cursor(server: Served, tmp_path: Path) -> None:
    from e2e.tiny_models import identity
    from onnx import TensorProto

    blindai_ok("upload", server.url, identity(tmp_path / "echo.onnx", TensorProto.STRING, ("n",)), SIMULATED)
    proof, opening = tmp_path / "p.json", tmp_path / "o.json"
    ended = blindai_ok(
        "infer", server.url, "echo", "-", SIMULATED, "--proof", proof, "--opening", opening,
        stdin=json.dumps(["\x1b[2Jgone"]),
    )  # fmt: skip
    verified = blindai_ok("verify", proof, "--opening", opening, SIMULATED)
    for shown in (ended.out, verified.out):
        assert "\\x1b[2Jgone" in shown
        assert "\x1b" not in shown


def test_a_reader_that_stops_early_sees_no_traceback(server: Served) -> None:
    ended = run(["sh", "-c", f'"$0" -m blindai.cli.main attest {server.url} {SIMULATED} | head -n 1', *_python()])
    assert ended.out.startswith("✓ ")
    assert "Traceback" not in ended.err


def _python() -> list[str]:
    import sys

    return [sys.executable]


def test_every_line_of_the_log_says_that_it_is_a_simulation(server: Served, doubling: str, rows: Path) -> None:
    blindai_ok("infer", server.url, doubling, rows, SIMULATED)
    blindai("infer", server.url, "no-such-model", rows, SIMULATED)
    lines = server.log.read_text().splitlines()
    assert lines
    assert [line for line in lines if f"[{WARNING}]" not in line] == []
