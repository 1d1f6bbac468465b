"""What the README and docs/ tell a reader to do works, and what they point at is there.

Run, page by page and from top to bottom, in an empty folder, beside a simulated server of its own:
- `console` (or `bash`) blocks: each line `$ blindai …`; `blindai serve` is left out, since the server is there already;
- `python` blocks: each as its own program;
- 50051, wherever a block names it, becomes the port of that server;
- the files of a folder that stands beside the page under its name are there too;
- the folder holds `model.onnx` (input `patients` FP32 [batch, 30], output `probabilities` FP32 [batch, 2]) and
  `patients.npy` (three rows), as README's quick start makes them.

A comment `<!-- docs-test: MARK -->` on the line above a block says otherwise, where MARK is
- `run`: all its `$` lines, or a whole `bash` block · `skip: why`: none of it · `exit 5`: it ends with that status;
- `output`: every line below a command is found in what it prints;
- `continue`: a `python` block goes on from the one before.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "examples", "bench", "vectors", "deploy", "image")
FOUND = (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")))
PAGES = sorted(page for page in FOUND if ".cache" not in page.parts)  # where `make bench` keeps other people's
EXECUTED = [page for page in PAGES if page == ROOT / "README.md" or page.is_relative_to(ROOT / "docs")]
README = ROOT / "README.md"

_MARK = re.compile(r"<!-- docs-test: (run|skip: .+|exit \d+|output|continue) -->")
_FENCE = re.compile(r" *(```+)(\w*)")
_LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]: (\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_FINDING_CODE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_FILE_ENDING = re.compile(r"\.(py|md|toml|json|txt|onnx)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    text: str
    line: int
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One program to run, the exit status it must end with, and lines it must print."""

    line: int
    program: tuple[str, ...]
    status: int = 0
    output: tuple[str, ...] = ()


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page; an unknown mark is an error, since it would silently do nothing."""
    lines = text.splitlines()
    for comment in re.findall(r"<!-- docs-test.*", text):
        assert _MARK.fullmatch(comment), f"unknown mark: {comment}"
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == opening[1])
        mark = _MARK.fullmatch(lines[at - 1].strip()) if at else None
        yield Block(language=opening[2], text="\n".join(lines[at + 1 : end]), line=at + 1, mark=mark[1] if mark else "")
        at = end + 1


def steps(text: str) -> list[Step]:
    """What a page asks its reader to run."""
    found: list[Step] = []
    program = ""
    for block in blocks(text):
        if block.mark.startswith("skip"):
            continue
        if block.language == "python":
            program = f"{program}\n{block.text}" if block.mark == "continue" else block.text
            found.append(Step(line=block.line, program=(sys.executable, "-c", program), status=_status(block)))
        elif block.language == "bash" and block.mark == "run" and not block.text.lstrip().startswith("$ "):
            found.append(Step(line=block.line, program=("bash", "-euo", "pipefail", "-c", block.text)))
        elif block.language in {"bash", "console"}:
            found += _console_steps(block)
    return found


def _status(block: Block) -> int:
    return int(block.mark.removeprefix("exit ")) if block.mark.startswith("exit ") else 0


def _console_steps(block: Block) -> Iterator[Step]:
    for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*(?:\n|\Z))*)", block.text, re.MULTILINE):
        wanted = command.startswith("blindai ") or block.mark == "run"
        if wanted and not command.startswith("blindai serve"):
            printed = tuple(line.strip() for line in output.splitlines() if line.strip(" .…"))
            yield Step(
                line=block.line,
                program=("bash", "-euo", "pipefail", "-c", command),
                status=_status(block),
                output=printed if block.mark == "output" else (),
            )


def quick_start() -> str:
    """README's program that makes `model.onnx` and `patients.npy`, which all pages go on with."""
    return next(block.text for block in blocks(README.read_text("utf-8")) if "model.onnx" in block.text)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which that program has been run."""
    folder = tmp_path_factory.mktemp("quick-start")
    subprocess.run([sys.executable, "-c", quick_start()], cwd=folder, check=True)
    return folder


def reader_environment(folder: Path) -> dict[str, str]:
    """A shell as a reader has it: `blindai` and `python` on the path, a HOME of its own, nothing else of this one."""
    tools = folder / "bin"
    tools.mkdir()
    for name, arguments in (("blindai", " -m blindai.cli.main"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        (tools / name).chmod(0o755)
    (folder / "home").mkdir()
    path = os.pathsep.join([str(tools), os.environ.get("PATH", os.defpath)])
    return {
        "PATH": path,
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT / "src"),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
    }


@contextmanager
def simulated_server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start `blindai serve --simulation` on a free port and yield that port, once it says that it is ready."""
    command = [str(folder / "bin" / "blindai"), "serve", "--simulation", "--port", "0"]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        try:
            yield _port_when_ready(server, folder / "server.log")
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def _port_when_ready(server: subprocess.Popen[bytes], log: Path) -> str:
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], 60)
    line = server.stdout.readline().decode() if readable else ""
    address = re.fullmatch(r"ready https://127\.0\.0\.1:(\d+)\n", line)
    assert address, f"expected `ready https://127.0.0.1:PORT`, found {line!r}; its log:\n{log.read_text('utf-8')}"
    return address[1]


def run_step(step: Step, port: str, folder: Path, environment: dict[str, str]) -> str:
    """Run one step; the answer is empty, or says what went otherwise than the page says."""
    program = [*step.program[:-1], re.sub(r"\b50051\b", port, step.program[-1])]
    done = subprocess.run(
        program,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    printed = f"{step.program[-1]}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    if done.returncode != step.status:
        return f"line {step.line}: exit status {done.returncode}, expected {step.status}:\n{printed}"
    missing = [line for line in step.output if line not in done.stdout]
    return f"line {step.line}: {missing} is not in the output of:\n{printed}" if missing else ""


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.network
@pytest.mark.parametrize("page", [page for page in EXECUTED if steps(page.read_text("utf-8"))], ids=_id)
def test_what_the_page_says_works(page: Path, inputs: Path, tmp_path: Path) -> None:
    environment = reader_environment(tmp_path)
    work = tmp_path / "work"
    shutil.copytree(inputs, work)
    if page.with_suffix("").is_dir():
        shutil.copytree(page.with_suffix(""), work, dirs_exist_ok=True)
    with simulated_server(tmp_path, environment) as port:
        for step in steps(page.read_text("utf-8")):
            assert run_step(step, port, work, environment) == ""


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    without_code = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links that lead to no file of this repository or to no heading."""
    prose = _CODE.sub("", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))
    targets = (link for groups in _LINK.findall(prose) for link in groups if link)
    return [
        target for target in targets if not re.match(r"[a-z]+:", target) and not _leads_somewhere(page, text, target)
    ]


def _leads_somewhere(page: Path, text: str, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        return False
    return not anchor or anchor in headings(path.read_text("utf-8") if name else text)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_relative_links_resolve(page: Path) -> None:
    assert broken_links(page, page.read_text("utf-8")) == []


def where_is_table(text: str) -> list[str]:
    """Everything in backticks in the README's table under the heading "Where is…?"."""
    section = re.search(r"^#+ Where is.*?\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    rows = [line for line in section[1].splitlines() if line.startswith("|")] if section else []
    return [code for row in rows for code in _CODE.findall(row)]


def not_there(mentions: list[str]) -> list[str]:
    """Mentioned paths (`src/…`, `src/….py::name`) and finding codes (`binding.path`) that do not exist."""
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    return [mention for mention in mentions if not _is_there(mention, source)]


def _is_there(mention: str, source: str) -> bool:
    path, _, name = mention.partition("::")
    if "/" in path:
        found = ROOT / path
        return found.exists() and (not name or bool(re.search(rf"\b(def|class) {name}\b", found.read_text("utf-8"))))
    if _FINDING_CODE.fullmatch(mention) and not _FILE_ENDING.search(mention):
        return f'"{mention}"' in source
    return True


def test_the_table_where_is_names_what_exists() -> None:
    mentions = where_is_table(README.read_text("utf-8"))
    assert any(mention.startswith("src/") for mention in mentions), "README.md has no table under `Where is…?`"
    assert not_there(mentions) == []


def test_reader_finds_what_a_page_asks_to_run() -> None:
    page = (
        "```console\n$ blindai serve --simulation\nready\n$ make demo\n$ blindai models \\\n    --json\n```\n"
        "<!-- docs-test: exit 5 -->\n```console\n$ blindai attest https://127.0.0.1:50051\n```\n"
        "<!-- docs-test: output -->\n```console\n$ blindai models\nname\n…\n```\n"
        "<!-- docs-test: run -->\n```bash\ntrue\n```\n```bash\nfalse\n```\n"
        "```python\na = 1\n```\n<!-- docs-test: continue -->\n```python\nb = a\n```\n"
        "<!-- docs-test: skip: needs a GPU -->\n```python\nraise SystemExit(1)\n```\n"
    )
    found = [(step.program[-1], step.status, step.output) for step in steps(page)]
    assert found == [
        ("blindai models \\\n    --json", 0, ()),
        ("blindai attest https://127.0.0.1:50051", 5, ()),
        ("blindai models", 0, ("name",)),
        ("true", 0, ()),
        ("a = 1", 0, ()),
        ("a = 1\nb = a", 0, ()),
    ]


def test_a_step_that_goes_otherwise_is_noticed(tmp_path: Path) -> None:
    environment = reader_environment(tmp_path)
    fails, ends_well, says_other = (
        Step(line=1, program=("bash", "-c", "exit 5")),
        Step(line=2, program=("bash", "-c", "test 50051 = 1234"), status=0),
        Step(line=3, program=("bash", "-c", "echo one"), output=("two",)),
    )
    assert "exit status 5, expected 0" in run_step(fails, "1234", tmp_path, environment)
    assert run_step(ends_well, "1234", tmp_path, environment) == ""
    assert "['two'] is not in the output" in run_step(says_other, "1234", tmp_path, environment)


def test_broken_links_and_mentions_are_noticed() -> None:
    text = "[a](LICENSE) [b](NOWHERE.md) [c](#here) [d](#gone) [e](../outside) [f](https://example.org)\n# Here\n"
    page = ROOT / "README.md"
    assert broken_links(page, text) == ["NOWHERE.md", "#gone", "../outside"]
    assert not_there(["src/blindai/wire.py::label", "src/blindai/wire.py::lable", "no.such_code", "`x`"]) == [
        "src/blindai/wire.py::lable",
        "no.such_code",
    ]
