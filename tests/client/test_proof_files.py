"""Proof and opening as files: the opening is for its owner's eyes, and both are read strictly."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import AttestationDocument, EvidenceItem
from blindai.client.proof import Opening, Proof, parse_opening, parse_proof
from blindai.errors import InvalidReceiptError
from blindai.oip.rest import InferResponse, encode_infer_response
from blindai.oip.tensors import tensor_from

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def opening() -> Opening:
    tensor = tensor_from(np.array([1.5], dtype=np.float32), name="y")
    response = InferResponse(model_name="m", model_version="1", id="", outputs=(tensor,))
    buffers, length = encode_infer_response(response)
    assert length is not None
    return Opening(
        salt=bytes(32),
        request_body=b"patient",
        response_body=b"".join(buffers),
        response_header_length=length,
        nonce=None,
        batch=None,
    )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="no permission bits on Windows")
@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_an_opening_is_readable_by_its_owner_only(opening: Opening, tmp_path: Path, umask: int) -> None:
    path = tmp_path / "proof.opening.json"
    before = os.umask(umask)
    try:
        opening.save(path)
        assert mode_of(path) == 0o600
        path.chmod(0o644)
        opening.save(path)
        assert mode_of(path) == 0o600
    finally:
        os.umask(before)
    assert parse_opening(path.read_bytes()) == opening
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_an_opening_takes_the_place_of_a_link_and_leaves_its_target_alone(opening: Opening, tmp_path: Path) -> None:
    shared, path = tmp_path / "shared.json", tmp_path / "proof.opening.json"
    shared.write_bytes(b"theirs")
    path.symlink_to(shared)
    opening.save(path)
    assert shared.read_bytes() == b"theirs"
    assert not path.is_symlink()
    assert mode_of(path) == 0o600


def test_an_opening_that_cannot_be_put_in_its_place_is_not_left_beside_it(opening: Opening, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        opening.save(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("version", [b"true", b"2", b'"1"', b"[1]"])
def test_a_version_is_the_number_one_and_nothing_like_it(opening: Opening, version: bytes) -> None:
    item = EvidenceItem(tee="simulation", evidence=b"{}", endorsements=())
    document = AttestationDocument(keyset=b"{}", mode=Mode.CACHED, evidence=(item,), batch=None)
    proof = Proof(receipt="a.b.c", document=document)
    assert parse_proof(proof.encode()) == proof
    assert parse_opening(opening.encode()) == opening
    for parse, data in ((parse_proof, proof.encode()), (parse_opening, opening.encode())):
        changed = data.replace(b'"version": 1', b'"version": ' + version, 1)
        assert changed != data
        with pytest.raises(InvalidReceiptError, match="malformed"):
            parse(changed)
