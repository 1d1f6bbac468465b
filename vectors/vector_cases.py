"""Which vectors there are, in the order of their numbers, and the cases of `binding`, `padding` and `bundle`.

Inputs come from names (`vector_format.fixed`); malformed ones are built here, by the specification's text alone.
Leaves out: the expected values (generate.py computes them).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from credential_cases import credential_cases
from keyset_cases import keyset_cases
from manifest_cases import release_cases
from receipt_cases import receipt_cases
from sealed_cases import sealed_cases
from server_cases import configuration_cases, ensemble_cases, index_cases, simulation_cases, store_cases, tpm_cases
from session_cases import session_cases
from vector_format import KSID, ROOT, Case, compact, fixed
from vector_operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH = ("batch-leaf", "batch-node", "batch-root")


def all_cases(wrapped: Mapping[str, bytes]) -> list[Case]:
    """Every case, in the order of their numbers; `wrapped` are the stored encapsulations."""
    return [
        *_binding_cases(),
        *keyset_cases(),
        *sealed_cases(wrapped),
        *session_cases(wrapped),
        *receipt_cases(),
        *_padding_cases(),
        *_bundle_cases(),
        *ensemble_cases(),
        *configuration_cases(),
        *simulation_cases(),
        *store_cases(),
        *release_cases(),
        *index_cases(),
        *tpm_cases(),
        *credential_cases(),
    ]


def _binding_cases() -> Iterator[Case]:
    def case(slug: str, title: str, operation: str, covers: tuple[str, ...] = (), **inputs: Any) -> Case:
        failure = None if covers else "stale_evidence"
        return Case(
            topic="binding",
            slug=slug,
            title=title,
            spec="docs/spec/binding.md",
            operation=operation,
            covers=tuple(sorted(covers)),
            inputs=inputs,
            failure=failure,
        )

    fresh: dict[str, Any] = {"mode": 1, "keyset_id": KSID, "challenge": ROOT}
    cached: dict[str, Any] = {"mode": 0, "keyset_id": KSID, "challenge": b""}
    quote, device = ("report-data", "rd32"), ("device", "device-nonce", "report-data")
    cards = [fixed("card 0", 48), fixed("card 1", 5)]
    yield case("report-data-fresh", "bound and rd32 of a fresh quote without devices", "report_data", quote, **fresh)
    yield case("report-data-cached", "bound and rd32 of a cached quote: LP of no bytes", "report_data", quote, **cached)
    yield case("device-fresh", "two devices, evidence as sent, in order", "device", device, **fresh, evidence=cards)
    yield case("device-cached", "one device, cached", "device", device, **cached, evidence=cards[:1])
    yield case("device-none", "no device: 32 zeros", "device", device[1:], **fresh, evidence=[])
    nonces = [fixed(f"nonce {index}", 32) for index in range(8)]
    for count in (1, 2, 3, 5, 8):
        covers = BATCH if count > 1 else (BATCH[0], BATCH[2])
        yield case(f"batch-{count}", f"root and every path of {count} nonces", "batch", covers, nonces=nonces[:count])
    path = OPERATIONS["batch"]({"nonces": nonces[:5]})["paths"][4]
    proof: dict[str, Any] = {"nonce": nonces[4], "index": 4, "count": 5, "path": path}
    yield case("path-odd", "the fifth of five nonces moves up unchanged twice", "root_from_path", BATCH, **proof)
    for slug, title, change in (
        ("path-too-short", "a sibling is missing", {"path": []}),
        ("path-too-long", "a sibling too many", {"path": [*path, ROOT]}),
        ("path-node-size", "a sibling of 31 bytes", {"path": [path[0][:31]]}),
        ("path-index-outside", "index 5 of 5 cannot be", {"index": 5}),
        ("path-other-index", "(index, count) implies three siblings, not one", {"index": 3}),
    ):
        yield case(slug, title, "root_from_path", **{**proof, **change})
    yield case("fresh-without-challenge", "mode 1, no challenge", "report_data", **{**fresh, "challenge": b""})
    yield case("cached-with-challenge", "mode 0 with a challenge", "report_data", **{**cached, "challenge": ROOT})
    yield case("device-short-challenge", "31 bytes", "device", **{**fresh, "challenge": ROOT[:31], "evidence": []})


def _padding_cases() -> Iterator[Case]:
    common: dict[str, Any] = {"topic": "padding", "spec": "docs/spec/sealed.md §3, §6", "covers": ()}
    steps = [0, 1, 1023, 1024, 1025, 2048, 2049, 4096, 4097, 8192, 8193, 16383, 16384]
    large = [16385, 17408, 17409, 32767, 32768, 32769, 65535, 65536, 65537, 10**6, 2**20 - 1, 2**20, 2**20 + 1]
    huge = [2**24 + 1, 10**9, 2**32 - 1, 2**32, 2**32 + 1, 10 * 2**30, 10 * 2**30 + 1]
    for slug, title, sizes in (
        ("powers", "1, 2, 4, 8 and 16 KiB", steps),
        ("padme", "Padmé from 16 KiB on", large),
        ("padme-large", "and for models", huge),
    ):
        yield Case(slug=slug, title=title, operation="padded_size", inputs={"sizes": sizes}, **common)
    for slug, title, size, padded in (
        ("cut-small", "one frame", 100, True),
        ("cut-unpadded", "full frames and the rest", 2**20, False),
        ("cut-empty", "an empty body pads to 1 KiB", 0, True),
        ("cut-empty-unpadded", "an empty body has one empty frame", 0, False),
        ("cut-overflow", "padding beyond the last data frame fills one with n = 0", 3 * (2**20 - 4), True),
    ):
        inputs = {"size": size, "padded": padded}
        yield Case(slug=slug, title=title, operation="cut_body", inputs=inputs, **common)
    common["operation"] = "padding_bounds"
    ok = {"frames": [[100, 0], [50, 874]]}
    yield Case(slug="bounds", title="zeros in the last frame only", inputs=ok, **common)
    yield Case(
        slug="bounds-spread", title="in frames without data too", inputs={"frames": [[3, 21], [0, 1000]]}, **common
    )
    common["failure"] = "sealed_message"
    for slug, title, frames in (
        ("data-after-padding", "data follows zeros", [[100, 10], [1, 0]]),
        ("data-after-empty", "data follows a frame without data", [[100, 0], [0, 0], [1, 0]]),
        ("one-too-many", "1025 bytes for a body of one", [[1, 1024]]),
        ("too-many-spread", "over frames without data", [[1, 1023], [0, 1]]),
        ("beyond-padme", "17 KiB + 1 for a body of 16385", [[16385, 1024]]),
    ):
        yield Case(slug=slug, title=title, inputs={"frames": frames}, **common)


def _bundle_cases() -> Iterator[Case]:
    common: dict[str, Any] = {"topic": "bundle", "spec": "docs/spec/receipt.md (model digest)", "covers": ("model",)}
    session = {"graph_optimization": "all", "provider": "CPUExecutionProvider"}
    files: list[dict[str, Any]] = [
        {"path": "m.onnx", "sha256": hashlib.sha256(b"abc").digest(), "size": 3},
        {"path": "m.onnx.data", "sha256": hashlib.sha256(b"").digest(), "size": 0},
    ]
    writes: dict[str, Any] = {"operation": "encode_manifest", **common}
    one = {"files": files[:1], "session": {**session, "graph_optimization": "disabled"}}
    yield Case(slug="one-file", title="a model of one file, unoptimised", inputs=one, **writes)
    yield Case(slug="two-files", title="with external data", inputs={"files": files, "session": session}, **writes)
    named: list[dict[str, Any]] = [{**file, "sha256": file["sha256"].hex()} for file in files]
    good = {"files": named, "session": session}
    reads: dict[str, Any] = {"operation": "manifest", **common}
    yield Case(slug="read", title="a client reads a manifest", inputs={"manifest": compact(good)}, **reads)
    reads = {**reads, "covers": (), "failure": "invalid_model"}
    upper = {**named[0], "sha256": named[0]["sha256"].upper()}
    for slug, title, manifest in (
        ("spaced", "not in the compact form", json.dumps(good, sort_keys=True).encode()),
        ("unsorted", "files not sorted by path", compact({**good, "files": named[::-1]})),
        ("same-path-twice", "a path twice", compact({**good, "files": [named[0], named[0]]})),
        ("two-models", "two .onnx files", compact({**good, "files": [{**named[0], "path": "a.onnx"}, named[0]]})),
        ("no-model", "no .onnx file", compact({**good, "files": named[1:]})),
        ("no-files", "an empty list", compact({**good, "files": []})),
        ("folder", "a path with a folder", compact({**good, "files": [{**named[0], "path": "a/m.onnx"}]})),
        ("hidden", "a path that begins with a dot", compact({**good, "files": [{**named[0], "path": ".m.onnx"}]})),
        ("upper-case-hex", "a digest in capitals", compact({**good, "files": [upper]})),
        ("negative-size", "a size below zero", compact({**good, "files": [{**named[0], "size": -1}]})),
        ("size-true", "true is no size", compact({**good, "files": [{**named[0], "size": True}]})),
        ("other-provider", "another execution provider", compact({**good, "session": {**session, "provider": "X"}})),
        ("unknown-member", "a member more", compact({**good, "note": ""})),
        ("duplicate-name", "`files` twice", b'{"files":[],' + compact(good)[1:]),
    ):
        yield Case(slug=slug, title=title, inputs={"manifest": manifest}, **reads)
