"""Writes the vectors: `python vectors/generate.py` rewrites every case, `--check` compares instead and writes nothing.

Expected values come from this project's code; tests/test_vectors.py requires the second implementation to agree.
HPKE's encapsulations are random, so they are drawn once and kept in encapsulations.json; all else follows from names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from message_parts import OPENER, encapsulated
from vector_cases import all_cases
from vector_format import case_toml, expected_json
from vector_operations import OPERATIONS, key_pair

from blindai.channel.hpke import seal
from blindai.errors import BlindAIError, SealedMessageError
from blindai.wire import base64url_decode, base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vector_format import Case

ROOT = Path(__file__).resolve().parent
ENCAPSULATIONS = "encapsulations.json"
COVERAGE = "SPEC_COVERAGE.md"
NAMES = ("opening", "no-route")

_COVERAGE_HEAD = """# Which vectors cover which formula

Written by `generate.py`; `tests/test_vectors.py` holds it against what the second implementation evaluates.
A formula is named by the label that it hashes: `L("keyset")` is `keyset`.
`runtime-policy` is `SHA-256(L("runtime-policy") ‖ LP(runtime))` over the keyset's `runtime` object in its compact form.
Formulas without a label (Padmé, the cut into frames, the replay window, heads) come first, by topic and operation.

| label | vectors |
| --- | --- |
"""


def outcome(case: Case) -> dict[str, Any]:
    """What this project's code says to a case: its outputs, or the failure."""
    try:
        return OPERATIONS[case.operation](dict(case.inputs))
    except BlindAIError as error:
        return {"failure": error.code}


def render(cases: Iterable[Case]) -> dict[str, str]:
    """Every generated file's text, by its path below vectors/."""
    files: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    covered: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        numbers[case.topic] += 1
        folder = f"{case.topic}/{numbers[case.topic]:03}-{case.slug}"
        expected = outcome(case)
        if expected.get("failure") != case.failure:
            raise SystemExit(f"{folder}: expected {case.failure or 'success'}, found {expected}")
        files[f"{folder}/case.toml"] = case_toml(case)
        files[f"{folder}/expected.json"] = expected_json(expected)
        if not case.failure:
            for name in case.covers or (f"({case.topic}: {case.operation})",):
                covered[name].append(folder)
    rows = (f"| `{name}` | {', '.join(covered[name])} |\n" for name in sorted(covered))
    files[COVERAGE] = _COVERAGE_HEAD + "".join(rows)
    return files


def stored_encapsulations() -> dict[str, bytes]:
    """The encapsulations drawn earlier, those that still open."""
    path = ROOT / ENCAPSULATIONS
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    wrapped = {name: base64url_decode(text) for name, text in stored.items()}
    return {name: wrapped[name] for name in NAMES if name in wrapped and _opens(name, wrapped[name])}


def _opens(name: str, wrapped: bytes) -> bool:
    content_key, _, info = encapsulated(name)
    try:
        return key_pair(OPENER).open(wrapped, info=info) == content_key
    except SealedMessageError:
        return False


def draw_missing(wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same, and a new one for each that is missing."""
    drawn = dict(wrapped)
    for name in NAMES:
        if name not in drawn:
            content_key, _, info = encapsulated(name)
            drawn[name] = seal(content_key, key_pair(OPENER).public_key, info=info)
    return drawn


def differences() -> list[str]:
    """Paths of generated files that are not what this code writes, surplus ones included."""
    wrapped = stored_encapsulations()
    if set(wrapped) != set(NAMES):
        return [ENCAPSULATIONS]
    files = render(all_cases(wrapped))
    present = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/*") if path.is_file()}
    changed = [name for name in files if not _holds(ROOT / name, files[name])]
    return sorted({*changed, *(present - files.keys())})


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write() -> dict[str, str]:
    """Rewrite every generated file; returns their texts."""
    wrapped = draw_missing(stored_encapsulations())
    files = render(all_cases(wrapped))
    for folder in {path.parent.parent for path in ROOT.glob("*/*/case.toml")}:
        shutil.rmtree(folder)
    stored = {name: base64url_encode(wrapped[name]) for name in NAMES}
    files[ENCAPSULATIONS] = json.dumps(stored, indent=2) + "\n"
    for name, text in files.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the vectors.")
    parser.add_argument("--check", action="store_true", help="compare instead; exit 1 if a file differs")
    if parser.parse_args().check:
        changed = differences()
        print("\n".join(changed) if changed else "every vector is what this code writes")
        return 1 if changed else 0
    files = write()
    counts = Counter(Path(name).parts[0] for name in files if name.endswith("case.toml"))
    failures = Counter(Path(n).parts[0] for n, t in files.items() if n.endswith(".toml") and "\nfailure = " in t)
    for topic, count in counts.items():
        print(f"{topic}: {count} vectors, {failures[topic]} of them failures")
    print(f"{counts.total()} vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
