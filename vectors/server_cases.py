"""The cases of the topics `configuration`, `simulation` and `store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server_operations import SERVER_OPERATIONS
from vector_format import ROOT, Case, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator


def configuration_cases() -> Iterator[Case]:
    """Settings: those that a case names, over the defaults."""
    common: dict[str, Any] = {
        "topic": "configuration",
        "spec": "docs/spec/sealed.md §1 (`configuration`)",
        "operation": "configuration",
        "covers": ("configuration",),
    }
    good = {"simulation": True}
    some = {**good, "data_dir": "/srv/models", "service": "grüße", "port": 0, "upload_allowed": False, "max_models": 3}
    yield Case(slug="defaults", title="the defaults, `data_dir` null", inputs=good, **common)
    yield Case(slug="changed", title="some settings changed, one not ASCII", inputs=some, **common)
    attested = {"simulation": False, "tpm": "/dev/tpmrm0"}
    yield Case(slug="tpm", title="a TPM attests", inputs=attested, **common)
    common |= {"covers": (), "failure": "invalid_settings"}
    for slug, title, change in (
        ("unknown-name", "a name that is no setting", {"ports": 1}),
        ("number-for-true", "1 is not true", {"upload_allowed": 1}),
        ("true-for-number", "true is not 1", {"max_models": True}),
        ("zero", "no model at all", {"max_models": 0}),
        ("beyond-json", "2^53", {"max_store_bytes": 2**53}),
        ("long-epoch", "an epoch of a day and a second", {"epoch_s": 86401}),
        ("store-too-small", "a store that cannot hold one model", {"max_store_bytes": 2**34 - 1}),
        ("access-unused", "an access file that nobody looks at", {"access": "access.toml"}),
        ("tpm-without-store", "a TPM for a store that is not there", {"tpm": "/dev/tpmrm0"}),
        ("nothing-attests", "neither a TPM nor simulation", {"simulation": False}),
        ("access-missing", "authentication without an access file", {"authentication": "required"}),
    ):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **common)
    access = {**good, "authentication": "required", "access": f"sha256:{fixed('access file', 32).hex()}"}
    del common["failure"]
    common["covers"] = ("configuration",)
    yield Case(slug="access", title="an access file: its hash stands for its path", inputs=access, **common)
    common["operation"] = "configuration_with_repository"
    settings = {**good, "model_repository": "/srv/models"}
    listed = b'[{"files":{"config.pbtxt":"00"},"name":"m","versions":{"1":"sha256:00"}}]'
    inputs = {"settings": settings, "repository": listed}
    yield Case(slug="repository", title="with a model repository", inputs=inputs, **common)


def ensemble_cases() -> Iterator[Case]:
    """What an ensemble's digest covers."""
    wide, text = (
        {"datatype": "FP32", "name": "IN", "shape": [-1, 2]},
        {"datatype": "BYTES", "name": "é", "shape": [-1]},
    )
    models = [f"sha256:{fixed(f'member {index}', 32).hex()}" for index in range(2)]
    steps = [
        {"model": models[0], "inputs": {"x": "IN"}, "outputs": {"y": "mid", "a": "other"}},
        {"model": models[1], "inputs": {"b": "other", "a": "mid"}, "outputs": {"out": "é"}},
    ]
    yield Case(
        topic="bundle",
        slug="ensemble",
        title="an ensemble of two steps, tensors by names",
        spec="docs/spec/bundle.md (Ensembles)",
        operation="encode_ensemble",
        covers=("ensemble",),
        inputs={"inputs": [wide], "outputs": [text], "steps": steps},
    )


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def simulation_cases() -> Iterator[Case]:
    """Simulated evidence, whole and changed, and measurements of made-up packages."""
    common: dict[str, Any] = {"topic": "simulation", "spec": "docs/spec/evidence.md §3"}
    yield from _measurement_cases(common)
    common["covers"] = ("simulation-device", "simulation-evidence")
    made = {name: fixed(f"simulation {name}", size) for name, size in _SIZES.items()}
    attests = {"operation": "simulated_evidence", **common}
    yield Case(slug="evidence", title="with its two endorsements", inputs=made, **attests)
    item = SERVER_OPERATIONS["simulated_evidence"](made)
    evidence, certificate, root = item["evidence"], item["device_certificate"], item["root"]
    both = [["device_certificate", certificate], ["root", root]]
    reads: dict[str, Any] = {"operation": "verify_simulated", **common}
    good = {"evidence": evidence, "endorsements": both}
    turned = {**good, "endorsements": both[::-1]}
    yield Case(slug="verify", title="a client verifies it", inputs=good, **reads)
    yield Case(slug="verify-turned", title="the endorsements in the other order", inputs=turned, **reads)
    reads = {**reads, "covers": (), "failure": "malformed_evidence"}
    for slug, title, change in (
        ("other-magic", "one byte of the magic changed", {"evidence": _flip(evidence, 0)}),
        ("other-version", "version 0", {"evidence": _flip(evidence, 33)}),
        ("trailing-byte", "a byte follows", {"evidence": evidence + b"\0"}),
        ("cut", "the last byte is missing", {"evidence": evidence[:-1]}),
        ("no-certificate", "no device certificate", {"endorsements": both[1:]}),
        ("no-root", "no root", {"endorsements": both[:1]}),
        ("root-twice", "the root twice", {"endorsements": [*both, both[1]]}),
        ("unknown-endorsement", "an endorsement more", {"endorsements": [*both, ["note", b"x"]]}),
    ):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **reads)
    reads["failure"] = "unauthentic_evidence"
    for name, at in (
        ("device-key", 34),
        ("measurement", 66),
        ("bound", 98),
        ("signature-r", 162),
        ("signature-s", 194),
    ):
        title = f"one byte of the part that begins at {at}"
        yield Case(slug=f"changed-{name}", title=title, inputs={**good, "evidence": _flip(evidence, at)}, **reads)
    for slug, title, change in _other_signers(evidence, certificate, root):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **reads)


_SIZES = {"device_seed": 32, "measurement": 32, "bound": 64}


def _other_signers(evidence: bytes, certificate: bytes, root: bytes) -> Iterator[tuple[str, str, dict[str, Any]]]:
    def endorsed(certificate: bytes, root: bytes) -> dict[str, Any]:
        return {"endorsements": [["device_certificate", certificate], ["root", root]]}

    other, device = (Ed25519PrivateKey.from_private_bytes(seed) for seed in (ROOT, fixed("simulation device_seed", 32)))
    other_key, signed = other.public_key().public_bytes_raw(), evidence[:162]
    by_other = other.sign(b"blindai/1 simulation-device\0" + evidence[34:66])
    yield "changed-certificate", "one byte of the device certificate", endorsed(_flip(certificate, 0), root)
    yield "changed-root", "one byte of the root", endorsed(certificate, _flip(root, 0))
    yield "short-certificate", "a device certificate of 63 bytes", endorsed(certificate[:-1], root)
    yield "other-root", "a whole chain under another root", endorsed(by_other, other_key)
    taken = signed + other.sign(b"blindai/1 simulation-evidence\0" + signed)
    yield "other-device", "signed by a device that is not named", {"evidence": taken}
    yield "no-label", "signed without the label", {"evidence": signed + device.sign(signed)}


def _measurement_cases(common: dict[str, Any]) -> Iterator[Case]:
    measures = {"operation": "measure", "covers": ("simulation-measurement",), **common}
    files = [["b.py", b"x = 1\n"], ["a/b.py", b""], ["a-b.py", b"\xff"], ["a.py", b"a"], ["a/data.json", b"{}"]]
    tree = "paths sorted by their bytes (`-`, `.`, `/`), an empty file, and one that is not Python"
    yield Case(slug="measurement", title=tree, inputs={"files": files}, **measures)
    yield Case(slug="measurement-empty", title="no file", inputs={"files": []}, **measures)


def store_cases() -> Iterator[Case]:
    """Chunks under a fixed key, and whole files."""
    common: dict[str, Any] = {
        "topic": "store",
        "spec": "docs/spec/bundle.md (on the server's disk)",
        "covers": ("stored-chunk", "stored-file"),
    }
    keys = {"model_key": fixed("model key", 32), "file_id": fixed("file id", 32)}
    chunks = [b"the first chunk", b"the last"]
    two = {**keys, "chunks": chunks}
    yield Case(slug="seal", title="two chunks", operation="seal_chunks", inputs=two, **common)
    sealed = SERVER_OPERATIONS["seal_chunks"](two)["sealed"]
    yield Case(slug="open", title="and opened", operation="open_chunks", inputs={**keys, "sealed": sealed}, **common)
    for slug, title, size in (
        ("file-empty", "an empty file has one empty chunk", 0),
        ("file-padded", "of 17,000 bytes, zeros follow up to 17,408", 17_000),
        ("file-full-chunk", "exactly 1 MiB is one chunk", 2**20),
        ("file-two-chunks", "a byte more is two", 2**20 + 1),
        ("file-zeros-span", "the zeros reach from the second chunk into the third", 2**21 - 1),
    ):
        yield Case(slug=slug, title=title, operation="store_file", inputs={**keys, "size": size}, **common)
    padded = [chunks[0] + bytes(1024 - len(chunks[0]))]
    one = SERVER_OPERATIONS["seal_chunks"]({**keys, "chunks": padded})["sealed"][0]
    good = {**keys, "size": len(chunks[0]), "stored": one}
    yield Case(slug="read", title="a stored file is read", operation="read_stored_file", inputs=good, **common)
    common |= {"covers": (), "failure": "unseal"}
    for slug, title, change in (
        ("swapped", "the chunks in the other order", {"sealed": sealed[::-1]}),
        ("dropped-first", "the first chunk is missing", {"sealed": sealed[1:]}),
        ("dropped-last", "the last chunk is missing", {"sealed": sealed[:1]}),
        ("last-too-early", "the first chunk says that it is the last", {"sealed": [one, sealed[1]]}),
        ("changed", "one byte of a chunk", {"sealed": [_flip(sealed[0], 3), sealed[1]]}),
        ("changed-tag", "one byte of a tag", {"sealed": [sealed[0], _flip(sealed[1], len(sealed[1]) - 1)]}),
        ("other-file", "the id of another file", {"sealed": sealed, "file_id": ROOT}),
        ("other-model", "the key of another model", {"sealed": sealed, "model_key": ROOT}),
    ):
        yield Case(slug=slug, title=title, operation="open_chunks", inputs={**keys, **change}, **common)
    not_zero = SERVER_OPERATIONS["seal_chunks"]({**keys, "chunks": [padded[0][:-1] + b"\1"]})["sealed"][0]
    unpadded = SERVER_OPERATIONS["seal_chunks"]({**keys, "chunks": chunks[:1]})["sealed"][0]
    begun = SERVER_OPERATIONS["seal_chunks"]({**keys, "chunks": [*padded, b""]})["sealed"][0]
    for slug, title, stored in (
        ("file-padding", "its padding is not zero", not_zero),
        ("file-unpadded", "nothing follows the content", unpadded),
        ("file-cut", "the last byte is missing", one[:-1]),
        ("file-gone", "no byte is left", b""),
        ("file-longer", "a byte follows", one + b"\0"),
        ("file-not-last", "its only chunk says that more follow", begun),
    ):
        inputs = {**good, "stored": stored}
        yield Case(slug=slug, title=title, operation="read_stored_file", inputs=inputs, **common)


def index_cases() -> Iterator[Case]:
    """Indexes without a model: whole, changed, and under another key."""
    common: dict[str, Any] = {"topic": "store", "spec": "docs/spec/store.md (the index)", "covers": ("stored-index",)}
    keys = {"root_key": fixed("root key", 32), "index_id": fixed("index id", 32)}
    shares = [["public", "m", ["*"], []], ["b", "é", ["a", "c"], ["a"]]]
    made = {**keys, "generation": 2**40, "shares": shares}
    nothing = {**keys, "generation": 0, "shares": []}
    yield Case(slug="index", title="two decisions", operation="seal_index", inputs=made, **common)
    yield Case(slug="index-empty", title="nothing at all", operation="seal_index", inputs=nothing, **common)
    sealed = SERVER_OPERATIONS["seal_index"](made)["sealed"]
    good = {"root_key": keys["root_key"], "sealed": sealed}
    yield Case(slug="index-open", title="and opened", operation="open_index", inputs=good, **common)
    common |= {"covers": (), "failure": "unseal", "operation": "open_index"}
    for slug, title, change in (
        ("index-magic", "one byte of the magic", {"sealed": _flip(sealed, 0)}),
        ("index-id", "one byte of the id", {"sealed": _flip(sealed, 8)}),
        ("index-generation", "one byte of the generation", {"sealed": _flip(sealed, 47)}),
        ("index-content", "one byte of the content", {"sealed": _flip(sealed, 48)}),
        ("index-tag", "one byte of the tag", {"sealed": _flip(sealed, len(sealed) - 1)}),
        ("index-cut", "the last byte is missing", {"sealed": sealed[:-1]}),
        ("index-longer", "a byte follows", {"sealed": sealed + b"\0"}),
        ("index-header", "only the header", {"sealed": sealed[:48]}),
        ("index-other-key", "another root key", {"root_key": ROOT}),
    ):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **common)


def tpm_cases() -> Iterator[Case]:
    """What stands around the parts of a TPM's and of an Azure vTPM's evidence; each part is its maker's own."""
    parts: dict[str, Any] = {
        "quote": fixed("quote", 145),
        "signature": fixed("signature", 72),
        "pcr_values": fixed("pcr values", 96),
        "event_log": b"",
    }
    yield Case(
        topic="evidence",
        slug="tpm",
        title="a key under a hierarchy, and no event log",
        spec="docs/spec/tee/tpm.md",
        operation="tpm_evidence",
        covers=("tpm-evidence",),
        inputs={**parts, "ak_public": fixed("public", 90), "ak_parent": b"\x40\0\0\x0b"},
    )
    yield Case(
        topic="evidence",
        slug="azure-vtpm",
        title="with an event log",
        spec="docs/spec/tee/azure_vtpm.md",
        operation="azure_vtpm_evidence",
        covers=("azure-vtpm-evidence",),
        inputs={**parts, "hcl_report": fixed("hcl", 200), "event_log": fixed("log", 50)},
    )
    keys = {"ak_public": fixed("public", 90), "ak_parent": b"\x40\0\0\x0b"}
    whole = SERVER_OPERATIONS["tpm_evidence"]({**parts, **keys})["evidence"]
    long = SERVER_OPERATIONS["tpm_evidence"]({**parts, **keys, "quote": fixed("quote", 513)})["evidence"]
    reads: dict[str, Any] = {"topic": "evidence", "spec": "docs/spec/tee/tpm.md", "operation": "read_tpm_evidence"}
    yield Case(slug="tpm-read", title="and read", covers=("tpm-evidence",), inputs={"evidence": whole}, **reads)
    reads |= {"covers": (), "failure": "malformed_evidence"}
    for slug, title, evidence in (
        ("tpm-magic", "one byte of the magic", _flip(whole, 3)),
        ("tpm-cut", "the last part's length is cut", whole[:-1]),
        ("tpm-longer", "a byte follows", whole + b"\0"),
        ("tpm-long-part", "a quote of 513 bytes", long),
    ):
        yield Case(slug=slug, title=title, inputs={"evidence": evidence}, **reads)
