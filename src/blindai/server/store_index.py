"""The index of models that outlive the server: one sealed file that names everything else (docs/spec/store.md).

    file  = magic[8] ‖ id[32] ‖ u64 generation ‖ AES-256-GCM(key, nonce 0, padded content, aad)
    key   = HKDF-SHA256(root key, salt = id, info = L("stored-index"))[0:32]
    aad   = L("stored-index") ‖ everything before the ciphertext

Names, owners, versions, digests, sharing and each model's own key stand inside; its length is padded.
Leaves out: where it lies and when it is written (kept_store.py), and the root key (attester/sealing.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blindai.bundle import digest_text, parse_manifest
from blindai.channel.frames import padded_size
from blindai.errors import BlindAIError, TooLargeError, UnsealError
from blindai.server.catalogue import Record, StoredModel
from blindai.server.model_config import ServingConfig  # noqa: TC001  # msgspec reads the fields' types
from blindai.server.sharing import Share
from blindai.wire import label

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"BLDAIDX1"
ID_BYTES = 32
KEY_BYTES = 32
MAX_INDEX_BYTES = 64 * 1024 * 1024  # each change writes it whole
_HEADER = struct.Struct(f">{len(MAGIC)}s{ID_BYTES}sQ")
_LENGTH = struct.Struct(">I")
_TAG_BYTES = 16
_NONCE = bytes(12)  # each id, and so each key, seals one index


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant: str
    name: str
    version: str
    sequence: int
    manifest: bytes
    default_shape: tuple[int, ...] | None
    owner_key: bytes | None
    config: ServingConfig
    key: bytes
    files: tuple[bytes, ...]


class _Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    owner: str
    name: str
    run: tuple[str, ...]
    visible: tuple[str, ...]


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    models: tuple[_Model, ...]
    shares: tuple[_Share, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """What is kept.

    Attributes:
        generation: grows with every change; whoever counts elsewhere can tell an old index from the last one.
        records: every model.
        shares: owner, name and decision, of names that are shared.
    """

    generation: int
    records: tuple[Record, ...]
    shares: tuple[tuple[str, str, Share], ...]


def seal_index(index: StoreIndex, *, root_key: bytes, index_id: bytes) -> bytes:
    """The index as it lies on disk.

    Args:
        index: what is kept.
        root_key: 32 bytes that only this TEE and measurement have.
        index_id: 32 random bytes, never used before.

    Raises:
        TooLargeError: it would be larger than what is read.
    """
    content = _encoder.encode(_Content(models=tuple(map(_model, index.records)), shares=tuple(_shares(index.shares))))
    size = _LENGTH.size + len(content)
    if _HEADER.size + padded_size(size) + _TAG_BYTES > MAX_INDEX_BYTES:
        raise TooLargeError("what is said about all models no longer fits", hint="Delete models, or use fewer labels.")
    header = _HEADER.pack(MAGIC, index_id, index.generation)
    plaintext = _LENGTH.pack(len(content)) + content + bytes(padded_size(size) - size)
    return header + _cipher(root_key, index_id).encrypt(_NONCE, plaintext, label("stored-index") + header)


def open_index(sealed: bytes, *, root_key: bytes) -> StoreIndex:
    """Read an index, exactly.

    Raises:
        UnsealError: it was changed, or sealed by another TEE, another measurement or another store.
    """
    header = sealed[: _HEADER.size]
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise UnsealError("the store's index is none of this format", hint="it was written by another release, or cut")
    _, index_id, generation = _HEADER.unpack(header)
    try:
        aad = label("stored-index") + header
        plaintext = _cipher(root_key, index_id).decrypt(_NONCE, sealed[_HEADER.size :], aad)
    except (InvalidTag, ValueError):
        raise UnsealError(
            "the store's index does not open: it was changed on disk, or sealed by another machine or measurement",
            hint="restore the folder as it was, or start with an empty one; nothing was removed",
        ) from None
    return _parse(plaintext, generation)


def _parse(plaintext: bytes, generation: int) -> StoreIndex:
    (length,) = _LENGTH.unpack_from(plaintext)
    content = plaintext[_LENGTH.size : _LENGTH.size + length]
    try:
        found = _decoder.decode(content)
        records = tuple(map(_record, found.models))
        shares = tuple(
            (one.owner, one.name, Share(run=frozenset(one.run), visible=frozenset(one.visible))) for one in found.shares
        )
    except (msgspec.MsgspecError, BlindAIError) as error:
        raise UnsealError(f"the store's index holds what this release does not know: {error}") from None
    if _encoder.encode(found) != content:
        raise UnsealError("the store's index holds what this release does not know")
    return StoreIndex(generation=generation, records=records, shares=shares)


def _cipher(root_key: bytes, index_id: bytes) -> AESGCM:
    info = label("stored-index")
    return AESGCM(HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=index_id, info=info).derive(root_key))


def _model(record: Record) -> _Model:
    model = record.model
    return _Model(
        tenant=model.tenant,
        name=model.name,
        version=model.version,
        sequence=model.sequence,
        manifest=model.manifest.encode(),
        default_shape=model.default_shape,
        owner_key=model.owner_key,
        config=model.config,
        key=record.key,
        files=record.file_ids,
    )


def _record(kept: _Model) -> Record:
    manifest = parse_manifest(kept.manifest)
    if len(kept.key) != KEY_BYTES or len(kept.files) != len(manifest.files):
        raise UnsealError("a model's key or files are missing")
    model = StoredModel(
        name=kept.name,
        version=kept.version,
        manifest=manifest,
        digest=digest_text(manifest.digest),
        default_shape=kept.default_shape,
        sequence=kept.sequence,
        config=kept.config,
        tenant=kept.tenant,
        owner_key=kept.owner_key,
    )
    return Record(model=model, file_ids=kept.files, key=kept.key)


def _shares(shares: Iterable[tuple[str, str, Share]]) -> Iterable[_Share]:
    for owner, name, share in shares:
        yield _Share(owner=owner, name=name, run=tuple(sorted(share.run)), visible=tuple(sorted(share.visible)))


def _no_tensors(kind: Any, _value: Any) -> NoReturn:
    """A kept model's configuration has no warm-up requests, so nothing asks for one of these."""
    raise msgspec.ValidationError(f"a kept model has no {kind}")


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_Content, dec_hook=_no_tensors)
