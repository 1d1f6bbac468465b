"""The operations of `configuration`, `simulation` and `store`, by the second implementation (see second_operations)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from second_hpke import expand, extract
from second_implementation import LP, MIB, H, L, padme
from second_json import Refused, compact, require

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]

# --- configuration: docs/spec/sealed.md §1, docs/reference/cli.md (serve)
DEFAULTS: dict[str, Any] = {
    "simulation": False,
    "host": "127.0.0.1",
    "port": 50051,
    "service": "blindai-srv",
    "data_dir": None,
    "log_level": "info",
    "upload_allowed": True,
    "epoch_s": 21600,
    "max_body_bytes": 256 << 20,
    "max_model_bytes": 16 << 30,
    "max_models": 256,
    "run_timeout_s": 60,
    "max_store_bytes": 64 << 30,
    "max_uploads": 8,
    "max_connections": 1024,
    "max_buffered_bytes": 2 << 30,
    "idle_timeout_s": 60,
    "grpc_port": 50052,
    "metrics_port": 50053,
    "model_repository": None,
    "require_sealed": False,
    "isolation": "tenant",
    "batching": True,
    "authentication": "open",
    "access": None,
    "load_timeout_s": 300,
    "drain_timeout_s": 30,
    "idle_worker_s": 60,
    "max_workers": 64,
    "max_worker_bytes": 16 << 30,
    "execution_providers": ["cpu"],
    "telemetry_endpoint": None,
    "model_store": None,
    "tpm": None,
    "tpm_ek_issuers": None,
    "rotate_store_key": False,
}


def _configuration(i: Inputs) -> Outputs:
    settings = {**DEFAULTS, **i}
    types = {name: str if value is None else type(value) for name, value in DEFAULTS.items()}
    require(settings.keys() == DEFAULTS.keys(), "invalid_settings")
    require(settings["simulation"] or settings["tpm"] is not None, "invalid_settings")
    require(all(type(value) is types[name] for name, value in i.items()), "invalid_settings")
    require((settings["authentication"] == "required") == (settings["access"] is not None), "invalid_settings")
    has_issuers = settings["tpm_ek_issuers"] is not None
    require(not has_issuers or (settings["tpm"] is not None and not settings["simulation"]), "invalid_settings")
    sealing_only = settings["simulation"] and settings["tpm"] is not None
    require(not sealing_only or settings["model_store"] is not None, "invalid_settings")
    require(not settings["rotate_store_key"] or settings["model_store"] is not None, "invalid_settings")
    numbers = [value for name, value in settings.items() if types[name] is int and "port" not in name]
    require(all(0 < value < 2**53 for value in numbers) and settings["epoch_s"] <= 86400, "invalid_settings")
    require(settings["max_model_bytes"] <= settings["max_store_bytes"], "invalid_settings")
    return {"configuration": H(L("configuration"), LP(compact(settings)))}


def _configuration_with_repository(i: Inputs) -> Outputs:
    require(i["settings"].get("model_repository") is not None, "invalid_settings")
    settings = compact({**DEFAULTS, **i["settings"]})
    return {"configuration": H(L("configuration"), LP(settings), LP(i["repository"]))}


# --- ensembles: docs/spec/bundle.md (Ensembles)
def _encode_ensemble(i: Inputs) -> Outputs:
    manifest = compact({name: i[name] for name in ("steps", "outputs", "inputs")})
    return {"manifest": manifest, "digest": H(L("ensemble"), LP(manifest))}


# --- simulated evidence: docs/spec/evidence.md §3
SENTENCE = b"This seed is published on purpose: the BlindAI simulation root protects nothing."
FINGERPRINT = "5bce6200fad593bbdfe302fd6cced8b7b125af5959f435363d0b9b6a22d75964"
START = b"BLINDAI SIMULATION - NOT SECURE\n\0\1"  # magic, u16 1


def _simulated_evidence(i: Inputs) -> Outputs:
    root, device = (Ed25519PrivateKey.from_private_bytes(seed) for seed in (H(SENTENCE), i["device_seed"]))
    device_key = device.public_key().public_bytes_raw()
    signed = START + device_key + i["measurement"] + i["bound"]
    return {
        "evidence": signed + device.sign(L("simulation-evidence") + signed),
        "device_certificate": root.sign(L("simulation-device") + device_key),
        "root": root.public_key().public_bytes_raw(),
    }


def _verify_simulated(i: Inputs) -> Outputs:
    evidence, endorsements = i["evidence"], i["endorsements"]
    names = sorted(name for name, _ in endorsements)
    well_formed = len(evidence) == 226 and evidence[:34] == START and names == ["device_certificate", "root"]
    require(well_formed, "malformed_evidence")
    device_key, root, certificate = (
        evidence[34:66],
        dict(endorsements)["root"],
        dict(endorsements)["device_certificate"],
    )
    require(hashlib.sha256(root).hexdigest() == FINGERPRINT, "unauthentic_evidence")
    try:
        Ed25519PublicKey.from_public_bytes(root).verify(certificate, L("simulation-device") + device_key)
        signed = L("simulation-evidence") + evidence[:162]
        Ed25519PublicKey.from_public_bytes(device_key).verify(evidence[162:], signed)
    except InvalidSignature:
        raise Refused("unauthentic_evidence") from None
    return {"device_key": device_key, "measurement": evidence[66:98], "bound": evidence[98:162]}


def _measure(i: Inputs) -> Outputs:
    files = sorted((name.encode(), content) for name, content in i["files"] if name.endswith(".py"))
    return {"measurement": H(L("simulation-measurement"), *(LP(part) for file in files for part in file))}


# --- stored files: docs/spec/bundle.md (on the server's disk)
def _chunk(i: Inputs, index: int, *, last: bool) -> tuple[AESGCM, bytes, bytes]:
    """The file's cipher, and the chunk's nonce and additional data."""
    file_key = expand(extract(i["file_id"], i["model_key"]), L("stored-file"), 32)
    nonce = index.to_bytes(8, "big") + bytes([0, 0, 0, last])
    return AESGCM(file_key), nonce, L("stored-chunk") + i["file_id"] + nonce


def _seal(i: Inputs, chunks: list[bytes]) -> list[bytes]:
    sealed = []
    for index, chunk in enumerate(chunks):
        cipher, nonce, aad = _chunk(i, index, last=index == len(chunks) - 1)
        sealed.append(cipher.encrypt(nonce, chunk, aad))
    return sealed


def _open(i: Inputs, sealed: list[bytes]) -> list[bytes]:
    chunks = []
    for index, chunk in enumerate(sealed):
        cipher, nonce, aad = _chunk(i, index, last=index == len(sealed) - 1)
        try:
            chunks.append(cipher.decrypt(nonce, chunk, aad))
        except InvalidTag:
            raise Refused("unseal") from None
    return chunks


def _store_file(i: Inputs) -> Outputs:
    content = bytes(padme(i["size"]))
    stored = b"".join(_seal(i, [content[at : at + MIB] for at in range(0, len(content), MIB)]))
    return {"bytes": len(stored), "sha256": hashlib.sha256(stored).digest(), "end": stored[-32:]}


def _read_stored_file(i: Inputs) -> Outputs:
    """Of one chunk."""
    padded = padme(i["size"])
    require(padded <= MIB and len(i["stored"]) == padded + 16, "unseal")
    content = _open(i, [i["stored"]])[0]
    require(content[i["size"] :] == bytes(padded - i["size"]), "unseal")
    return {"content": content[: i["size"]]}


# --- evidence of several parts: docs/spec/tee/tpm.md, docs/spec/tee/azure_vtpm.md
TPM_PARTS = ("quote", "signature", "ak_public", "ak_parent", "pcr_values", "event_log")
AZURE_PARTS = ("hcl_report", "quote", "signature", "pcr_values", "event_log")


def _parts(i: Inputs, name: str, parts: tuple[str, ...]) -> bytes:
    return L(name) + b"".join(LP(i[part]) for part in parts)


def _read_tpm_evidence(i: Inputs) -> Outputs:
    magic, rest, found = L("tpm-evidence"), i["evidence"], {}
    require(rest.startswith(magic), "malformed_evidence")
    rest = rest[len(magic) :]
    for part, limit in zip(TPM_PARTS, (512, 1024, 1024, 66, 1536, 1 << 20), strict=True):
        size = int.from_bytes(rest[:4], "big")
        require(len(rest) >= 4 + size and size <= limit, "malformed_evidence")
        found[part], rest = rest[4 : 4 + size], rest[4 + size :]
    require(not rest, "malformed_evidence")
    return found


# --- the index of models that outlive the server: docs/spec/store.md
def _index_cipher(i: Inputs, index_id: bytes) -> AESGCM:
    return AESGCM(expand(extract(index_id, i["root_key"]), L("stored-index"), 32))


def _seal_index(i: Inputs) -> Outputs:
    shares = [
        {"owner": owner, "name": name, "run": run, "visible": visible} for owner, name, run, visible in i["shares"]
    ]
    content = compact({"models": [], "shares": shares})
    plaintext = len(content).to_bytes(4, "big") + content
    plaintext += bytes(padme(len(plaintext)) - len(plaintext))
    header = b"BLDAIDX1" + i["index_id"] + i["generation"].to_bytes(8, "big")
    sealed = _index_cipher(i, i["index_id"]).encrypt(bytes(12), plaintext, L("stored-index") + header)
    return {"sealed": header + sealed}


def _open_index(i: Inputs) -> Outputs:
    header, sealed = i["sealed"][:48], i["sealed"][48:]
    require(header.startswith(b"BLDAIDX1"), "unseal")
    try:
        plaintext = _index_cipher(i, header[8:40]).decrypt(bytes(12), sealed, L("stored-index") + header)
    except (InvalidTag, ValueError):
        raise Refused("unseal") from None
    content = json.loads(plaintext[4 : 4 + int.from_bytes(plaintext[:4], "big")])
    shares = [[one["owner"], one["name"], one["run"], one["visible"]] for one in content["shares"]]
    return {"generation": int.from_bytes(header[40:], "big"), "shares": shares}


SERVER_OPERATIONS: dict[str, Callable[[Inputs], Outputs]] = {
    "configuration": _configuration,
    "configuration_with_repository": _configuration_with_repository,
    "encode_ensemble": _encode_ensemble,
    "simulated_evidence": _simulated_evidence,
    "verify_simulated": _verify_simulated,
    "measure": _measure,
    "seal_chunks": lambda i: {"sealed": _seal(i, i["chunks"])},
    "open_chunks": lambda i: {"chunks": _open(i, i["sealed"])},
    "store_file": _store_file,
    "read_stored_file": _read_stored_file,
    "tpm_evidence": lambda i: {"evidence": _parts(i, "tpm-evidence", TPM_PARTS)},
    "read_tpm_evidence": _read_tpm_evidence,
    "azure_vtpm_evidence": lambda i: {"evidence": _parts(i, "azure-vtpm-evidence", AZURE_PARTS)},
    "seal_index": _seal_index,
    "open_index": _open_index,
}
