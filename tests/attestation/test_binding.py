"""The binding's formulas, against bytes put together by hand, and the batch's paths for every shape of tree."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.binding import (
    BatchTree,
    Binding,
    Mode,
    device_digest,
    device_nonce,
    report_data,
    report_data_32,
    root_from_path,
)
from blindai.errors import StaleEvidenceError

KSID = bytes(range(32))
ROOT = bytes(range(32, 64))
DEVICES = bytes(range(64, 96))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def nonces(count: int) -> list[bytes]:
    return [sha256(index.to_bytes(4, "big")) for index in range(count)]


def test_fresh_report_data_is_the_formula() -> None:
    by_hand = b"blindai/1 report-data\0\x01" + b"\0\0\0 " + KSID + b"\0\0\0 " + DEVICES + b"\0\0\0 " + ROOT
    bound = report_data(mode=Mode.FRESH, keyset_id=KSID, challenge=ROOT, device_digest=DEVICES)
    assert bound == hashlib.sha512(by_hand).digest()


def test_cached_report_data_ends_with_an_empty_challenge() -> None:
    by_hand = b"blindai/1 report-data\0\x00" + b"\0\0\0 " + KSID + b"\0\0\0 " + bytes(32) + b"\0\0\0\0"
    assert report_data(mode=Mode.CACHED, keyset_id=KSID, challenge=b"") == hashlib.sha512(by_hand).digest()


def test_the_small_slot_holds_a_hash_of_the_large_one() -> None:
    bound = report_data(mode=Mode.CACHED, keyset_id=KSID, challenge=b"")
    assert report_data_32(bound) == sha256(b"blindai/1 rd32\0" + bound)


def test_device_digest_covers_each_evidence_and_their_order() -> None:
    assert device_digest([b"a", b"bc"]) == sha256(b"blindai/1 device\0\0\0\0\x01a\0\0\0\x02bc")
    assert len({device_digest(items) for items in ([], [b""], [b"ab"], [b"a", b"b"], [b"b", b"a"])}) == 5
    assert device_digest([]) == bytes(32)


def test_device_nonce_is_the_formula() -> None:
    by_hand = b"blindai/1 device-nonce\0\x01" + b"\0\0\0 " + KSID + b"\0\0\0 " + ROOT
    assert device_nonce(mode=Mode.FRESH, keyset_id=KSID, challenge=ROOT) == sha256(by_hand)


def test_a_binding_gives_what_a_quote_carries() -> None:
    binding = Binding(mode=Mode.FRESH, keyset_id=KSID, challenge=ROOT, device_digest=DEVICES)
    assert binding.bound() == report_data(mode=Mode.FRESH, keyset_id=KSID, challenge=ROOT, device_digest=DEVICES)


@pytest.mark.parametrize(("mode", "challenge"), [(Mode.FRESH, b""), (Mode.CACHED, ROOT), (Mode.FRESH, ROOT[:31])])
def test_a_challenge_that_does_not_fit_the_mode_is_refused(mode: Mode, challenge: bytes) -> None:
    for formula in (report_data, device_nonce):
        with pytest.raises(StaleEvidenceError) as refusal:
            formula(mode=mode, keyset_id=KSID, challenge=challenge)
        assert refusal.value.finding_code == "binding.mode"


def test_a_keyset_id_of_another_size_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="a keyset id has 32 bytes"):
        report_data(mode=Mode.CACHED, keyset_id=KSID[1:], challenge=b"")


def test_a_batch_of_one_is_a_batch() -> None:
    (nonce,) = nonces(1)
    leaf = sha256(b"blindai/1 batch-leaf\0" + nonce)
    assert BatchTree([nonce]).root == sha256(b"blindai/1 batch-root\0\0\0\0\x01" + leaf)
    assert BatchTree([nonce]).path(0) == ()


def test_an_odd_node_moves_up_unchanged() -> None:
    one, two, three = (sha256(b"blindai/1 batch-leaf\0" + nonce) for nonce in nonces(3))
    pair = sha256(b"blindai/1 batch-node\0" + one + two)
    top = sha256(b"blindai/1 batch-node\0" + pair + three)
    assert BatchTree(nonces(3)).root == sha256(b"blindai/1 batch-root\0\0\0\0\x03" + top)
    assert [BatchTree(nonces(3)).path(index) for index in range(3)] == [(two, three), (one, three), (pair,)]


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33, 100])
def test_every_path_leads_to_the_root(count: int) -> None:
    batch = nonces(count)
    tree = BatchTree(batch)
    for index, nonce in enumerate(batch):
        path = tree.path(index)
        assert root_from_path(nonce=nonce, index=index, count=count, path=path) == tree.root


@given(count=st.integers(2, 40), data=st.data())
def test_another_nonce_index_count_or_node_leads_elsewhere(count: int, data: st.DataObject) -> None:
    tree = BatchTree(nonces(count))
    index = data.draw(st.integers(0, count - 1))
    other_index = data.draw(st.integers(0, count + 1).filter(lambda value: value != index))
    other_count = data.draw(st.integers(0, 80).filter(lambda value: value != count))
    path = tree.path(index)
    at = data.draw(st.integers(0, len(path) - 1))
    other_path = (*path[:at], sha256(path[at]), *path[at + 1 :])
    right: dict[str, Any] = {"nonce": nonces(count)[index], "index": index, "count": count, "path": path}
    changes: tuple[dict[str, Any], ...] = (
        {"nonce": bytes(32)},
        {"index": other_index},
        {"count": other_count},
        {"path": other_path},
    )
    for change in changes:
        try:
            found = root_from_path(**{**right, **change})
        except StaleEvidenceError as refusal:
            assert refusal.finding_code == "binding.path"  # noqa: PT017  # either way of failing is right
        else:
            assert found != tree.root


@pytest.mark.parametrize(
    "change",
    [
        {"path": ()},
        {"path": (bytes(32),) * 2},
        {"path": (bytes(32),) * 4},
        {"path": (bytes(31),) * 3},
        {"index": -1},
        {"index": 5},
        {"index": 5, "path": (bytes(32),) * 2},  # what the tree would imply, were there a sixth leaf
        {"index": 0, "count": 0, "path": ()},
        {"count": 0},
        {"count": 2**32},
    ],
)
def test_a_path_that_index_and_count_do_not_imply_is_refused(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"nonce": bytes(32), "index": 1, "count": 5, "path": (bytes(32),) * 3}
    with pytest.raises(StaleEvidenceError) as refusal:
        root_from_path(**{**arguments, **change})
    assert refusal.value.finding_code == "binding.path"


def test_a_batch_has_nonces_and_only_theirs() -> None:
    with pytest.raises(ValueError, match="at least one nonce"):
        BatchTree([])
    for index in (-1, 3):
        with pytest.raises(IndexError):
            BatchTree(nonces(3)).path(index)
    with pytest.raises(ValueError, match="a nonce has 32 bytes"):
        BatchTree([b"short"])


def test_values_of_ours_of_another_size_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="a device digest has 32 bytes"):
        report_data(mode=Mode.CACHED, keyset_id=bytes(32), challenge=b"", device_digest=bytes(33))
    with pytest.raises(ValueError, match="a keyset id has 32 bytes"):
        device_nonce(mode=Mode.CACHED, keyset_id=bytes(33), challenge=b"")


def test_a_batch_counts_with_32_bits() -> None:
    most = 2**32 - 1
    assert len(root_from_path(nonce=bytes(32), index=0, count=most, path=[bytes(32)] * 32)) == 32
    with pytest.raises(StaleEvidenceError, match="nonce 0 of 4294967296 cannot be"):
        root_from_path(nonce=bytes(32), index=0, count=most + 1, path=[bytes(32)] * 32)
    with pytest.raises(ValueError, match="a batch has at least one nonce, and fewer than 2"):
        BatchTree(range(most + 1))  # type: ignore[arg-type]  # so many that nobody could hold them; none is looked at
