"""`blindai access`: keys and files offline; and where a verb of the client finds its key."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import TYPE_CHECKING

import pytest
from cli.processes import SIMULATED, Served, blindai, blindai_ok

if TYPE_CHECKING:
    from pathlib import Path

KEY = "blindai_nobody_" + "A" * 43


def new_key(*options: str) -> dict[str, str]:
    made: dict[str, str] = json.loads(blindai_ok("access", "new-key", "--tenant", "clinic", "--json", *options).out)
    return made


def test_a_new_key_and_its_entry_fit(tmp_path: Path) -> None:
    made = new_key("--role", "upload", "--role", "infer", "--not-after", "2030-01-31", "--id", "mine")
    (entry,) = tomllib.loads(made["entry"])["tenants"]["clinic"]["keys"]
    assert entry["sha256"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert (entry["id"], entry["roles"], str(entry["not_after"])) == (
        "mine", ["infer", "upload"], "2030-01-31 00:00:00+00:00",
    )  # fmt: skip
    assert made["key"][-43:] not in made["entry"]
    file = tmp_path / "access.toml"
    file.write_text(made["entry"] + new_key("--role", "admin")["entry"])
    checked = json.loads(blindai_ok("access", "check", file, "--json").out)
    pin = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert checked == {"tenants": ["clinic"], "access": pin}
    assert pin in blindai_ok("access", "check", file).out
    assert blindai_ok("serve", "--simulation", "--access", file, "--check-config").out == "the settings are in order\n"


def test_the_key_goes_to_stdout_and_words_to_stderr() -> None:
    ended = blindai_ok("access", "new-key", "--tenant", "clinic", "--role", "infer")
    assert ended.out.startswith("blindai_")
    assert "blindai_" not in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("new-key", "--tenant", "clinic", "--role", "root"),
        ("new-key", "--tenant", "public", "--role", "infer"),
        ("new-key", "--tenant", "x]\n[y", "--role", "infer"),
        ("new-key", "--tenant", "clinic", "--role", "infer", "--id", 'x"'),
        ("new-key", "--tenant", "clinic"),
        ("check", "absent.toml"),
    ],
)  # fmt: skip
def test_mistakes_are_usage_errors_and_print_no_key(arguments: tuple[str, ...]) -> None:
    ended = blindai("access", *arguments)
    assert ended.code == 2
    assert "blindai_" not in ended.out


def test_a_server_does_not_start_with_a_bad_access_file(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[tenants.clinic]\npassword = 1\n")
    ended = blindai("serve", "--simulation", "--port", "0", "--access", tmp_path / "bad.toml")
    assert (ended.code, "tenants.clinic.password" in ended.err) == (2, True)


@pytest.mark.network
def test_a_key_on_the_command_line_is_warned_of_and_never_echoed(server: Served, tmp_path: Path) -> None:
    told = blindai("models", server.url, SIMULATED, "--api-key", KEY)
    assert (told.code, "whoever lists processes" in told.err) == (0, True)  # open access looks at no key
    (tmp_path / "key").write_text(KEY + "\n")
    kept = blindai("models", server.url, SIMULATED, "--api-key-file", tmp_path / "key")
    by_variable = blindai("models", server.url, SIMULATED, variables={"BLINDAI_API_KEY": KEY})
    refused = blindai("models", server.url, SIMULATED, variables={"BLINDAI_API_KEY": f"{KEY} {KEY}"})
    both = blindai("models", server.url, SIMULATED, "--api-key", KEY, "--api-key-file", tmp_path / "key")
    forbidden = blindai("access", "keys", server.url, SIMULATED)
    codes = [one.code for one in (kept, by_variable, refused, both, forbidden)]
    assert codes == [0, 0, 1, 2, 1]
    assert "access is open" in forbidden.err
    for ended in (told, kept, by_variable, refused, both):
        assert KEY not in ended.out + ended.err
        assert (ended is told) is ("whoever lists processes" in ended.err)
