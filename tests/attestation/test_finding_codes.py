"""The table of codes and the source say the same: no code that nobody explains, and no explanation of what cannot be.

Codes are read from the source, where they stand as `code=` (or in a constant of that use), and from complete
appraisals of good evidence of every TEE, in which each check leaves a finding.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attestation.good_evidence import codes_of_good_evidence
from findings_reference import all_rows

from blindai.attestation.tee import TEES

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "src" / "blindai"
ROOMS = ("attestation", "channel", "evidence_files", "client")
GENERAL = ("binding", "evidence", "keyset", "level", "machine", "operator", "policy", "release", "runtime")
CODE = re.compile(r"([a-z][a-z0-9_]*)\.([a-z0-9_]+)\Z")
DOCUMENTED = {row["code"] for row in all_rows()}
# Codes of the shared files, `f"{tee}.x"`, are some TEE's; which one, complete appraisals show.
ANY_TEE = "*"


def keyword_values(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in {"code", "finding_code"}:
            yield node.value
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(name, ast.Name) and name.id in {"CODE", "FORMAT"} for name in names):
                yield node.value


def code_of(value: ast.expr, own_tee: str | None) -> str | None:
    """`a.b` of a literal, `own.b` or `*.b` of a formatted one that ends in a literal word; None of anything else."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value if CODE.match(value.value) else None
    if isinstance(value, ast.JoinedStr) and len(value.values) == 2:
        head, tail = value.values
        if isinstance(head, ast.FormattedValue) and isinstance(tail, ast.Constant):
            word = str(tail.value)
            tee = own_tee if ast.unparse(head.value) == "TEE" and own_tee else ANY_TEE
            return f"{tee}{word}" if re.fullmatch(r"\.[a-z0-9_]+", word) else None
    return None


def positional_codes(tree: ast.AST) -> Iterator[str]:
    """Codes of the two parsers that make them of an argument."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="parsing_tpm"), args=[_, ast.Constant(value=str(what))]):
                yield f"{ANY_TEE}.{what}_format"
            case ast.Call(func=ast.Name(id="_malformed"), args=[ast.Constant(value=str(word)), *_]):
                if word.endswith("_format"):
                    yield f"{ANY_TEE}.{word}"


def own_tee_of(tree: ast.Module) -> str | None:
    """What `TEE` is in this file, if it is set here."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "TEE":
            return str(ast.literal_eval(node.value))
    return None


def codes_in_source() -> set[str]:
    found = set()
    for path in (file for room in ROOMS for file in (SOURCE / room).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        own_tee = own_tee_of(tree)
        found |= {code for value in keyword_values(tree) if (code := code_of(value, own_tee))}
        found |= set(positional_codes(tree))
    return found


IN_SOURCE = codes_in_source()


def is_documented(code: str) -> bool:
    if code.startswith(ANY_TEE):
        return any(f"{tee}{code[1:]}" in DOCUMENTED for tee in TEES)
    prefix = code.partition(".")[0]
    return code in DOCUMENTED or f"{prefix}.<member>" in DOCUMENTED


def test_every_code_of_the_source_is_explained() -> None:
    assert sorted(code for code in IN_SOURCE if not is_documented(code)) == []


def test_every_code_that_an_appraisal_shows_is_explained() -> None:
    assert sorted(code for code in codes_of_good_evidence() if not is_documented(code)) == []


@pytest.mark.parametrize("family", [*GENERAL, *TEES])
def test_nothing_is_explained_that_cannot_be(family: str) -> None:
    shown = codes_of_good_evidence()
    possible = IN_SOURCE | shown | {f"{family}{code[1:]}" for code in IN_SOURCE if code.startswith(ANY_TEE)}
    explained = {code for code in DOCUMENTED if code.startswith(f"{family}.") and "<" not in code}
    assert sorted(explained - possible) == []


def test_every_family_is_known() -> None:
    assert {code.partition(".")[0] for code in DOCUMENTED} <= {*GENERAL, *TEES}


def test_reader_finds_codes_in_source() -> None:
    calls = ('judge(code="a.b")', 'f(finding_code=f"{tee}.c")', 'f(code=f"{TEE}.d")', 'f(code=f"{tee}.{x}")')
    text = "\n".join(calls)
    found = {code_of(value, "own") for value in keyword_values(ast.parse(text))}
    assert found == {"a.b", "*.c", "own.d", None}
    assert {"binding.report_data", "*.certificate_format"} <= IN_SOURCE
