"""Framing: exactly the next frame or nothing, however the stream is cut, and padding within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from channel.sealed_parts import head_plaintext, hostile_frame, pieces, plaintext, split_frames
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.frames import (
    MAX_DATA_BYTES,
    MAX_FRAMES,
    MAX_HEAD_BYTES,
    Frame,
    FrameOpener,
    FrameSealer,
    FrameType,
    PaddingBounds,
    cut_body,
    padded_size,
)
from blindai.errors import SealedMessageError, TruncatedMessageError

if TYPE_CHECKING:
    from collections.abc import Iterable

KEYS = bytes(range(44))
OTHER_KEYS = bytes(range(1, 45))
HEAD = b'{"head":1}'
REFUSED = (SealedMessageError, TruncatedMessageError)
MIB = 1 << 20

Cuts = list[tuple[bytes, int]]
cuts = st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 40)), min_size=1, max_size=6)


def sealed(frames: Cuts, *, keys: bytes = KEYS, head: bytes = HEAD) -> bytes:
    sealer = FrameSealer(keys)
    kinds = [FrameType.MORE] * (len(frames) - 1) + [FrameType.LAST]
    return sealer.seal_head(head) + b"".join(
        sealer.seal(kind, data, zeros=zeros) for kind, (data, zeros) in zip(kinds, frames, strict=True)
    )


def opened(chunks: Iterable[bytes], *, keys: bytes = KEYS) -> list[tuple[FrameType, bytes, int]]:
    opener = FrameOpener(keys)
    frames = [(frame.type, bytes(frame.data), frame.zeros) for one in chunks for frame in opener.feed(one)]
    opener.end()
    return frames


def refuses(stream: bytes) -> bool:
    try:
        opened([stream])
    except REFUSED:
        return True
    return False


@given(cuts, st.binary(max_size=3000), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_round_trip_however_the_stream_is_cut(frames: Cuts, head: bytes, at: list[int]) -> None:
    stream = sealed(frames, head=head)
    found = opened(pieces(stream, at))
    assert found == opened([stream])
    assert found[0][:2] == (FrameType.MORE, head)
    assert [(data, zeros) for _, data, zeros in found[1:]] == frames
    assert [kind for kind, *_ in found[1:]] == [FrameType.MORE] * (len(frames) - 1) + [FrameType.LAST]


def test_round_trip_byte_by_byte() -> None:
    stream = sealed([(b"one", 0), (b"", 0), (b"two", 9)])
    assert opened(bytes([byte]) for byte in stream) == opened([stream])


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda tail: b"\0\0\x04\x15\0" + tail))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises(REFUSED):
        opened([data])


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=1100)), min_size=1, max_size=4))
def test_arbitrary_plaintexts_from_a_peer_with_the_keys_raise_only_our_errors(hostile: list[tuple[int, bytes]]) -> None:
    stream = b"".join(hostile_frame(KEYS, index, *frame) for index, frame in enumerate(hostile))
    if refuses(stream):
        return
    assert [kind for kind, _ in hostile] == [0] * (len(hostile) - 1) + [1]


@given(cuts, cuts, st.data())
def test_any_other_sequence_of_frames_of_two_messages_is_refused(one: Cuts, other: Cuts, data: st.DataObject) -> None:
    mine, foreign = split_frames(sealed(one)), split_frames(sealed(other, keys=OTHER_KEYS))
    chosen = data.draw(st.lists(st.sampled_from(mine + foreign), max_size=len(mine) + 2))
    if chosen != mine:
        assert refuses(b"".join(chosen))


FRAMES = split_frames(sealed([(b"one", 0), (b"two", 0), (b"three", 0), (b"four", 5)]))


@pytest.mark.parametrize("position", range(len(FRAMES)))
def test_a_dropped_doubled_or_spliced_frame_is_refused(position: int) -> None:
    foreign = split_frames(sealed([(b"one", 0), (b"two", 0), (b"three", 0), (b"four", 5)], keys=OTHER_KEYS))
    before, after = FRAMES[:position], FRAMES[position + 1 :]
    for stream in (
        [*before, *after],
        [*before, FRAMES[position], FRAMES[position], *after],
        [*before, foreign[position], *after],
        [*before, *foreign[position:]],
        [*foreign[:position], FRAMES[position], *after] if position else [*FRAMES, *FRAMES],
    ):
        assert refuses(b"".join(stream))


@pytest.mark.parametrize("position", range(len(FRAMES) - 1))
def test_reordered_frames_are_refused(position: int) -> None:
    swapped = [*FRAMES[:position], FRAMES[position + 1], FRAMES[position], *FRAMES[position + 2 :]]
    assert refuses(b"".join(swapped))


def test_frames_of_one_message_do_not_replace_one_another() -> None:
    for position in range(len(FRAMES)):
        for other in range(len(FRAMES)):
            if other != position:
                stream = [*FRAMES[:position], FRAMES[other], *FRAMES[position + 1 :]]
                assert refuses(b"".join(stream))


def test_every_truncation_is_told_from_a_change() -> None:
    stream = b"".join(FRAMES)
    for length in range(len(stream)):
        with pytest.raises(TruncatedMessageError):
            opened([stream[:length]])


@pytest.mark.parametrize("surplus", [b"\0", b"\0\0\0", b"\0\0\0\0", FRAMES[-1], FRAMES[1]])
@pytest.mark.parametrize("together", [True, False])
def test_bytes_after_the_last_frame_are_refused(surplus: bytes, *, together: bool) -> None:
    stream = b"".join(FRAMES)
    chunks = [stream + surplus] if together else [stream, surplus]
    with pytest.raises(SealedMessageError, match="follow"):
        opened(chunks)


@pytest.mark.parametrize("after", [b"", b"\0", FRAMES[1]])
def test_what_was_refused_is_refused_again(after: bytes) -> None:
    changed = bytearray(FRAMES[1])
    changed[-1] ^= 1
    for refused in (FRAMES[0] + bytes(changed), FRAMES[0] + b"\0\0\0\0", b"".join(FRAMES) + b"\0"):
        opener = FrameOpener(KEYS)
        for received in (refused, after, after):
            with pytest.raises(SealedMessageError):
                opener.feed(received)


def test_every_flipped_byte_is_refused() -> None:
    stream = b"".join(FRAMES)
    for position in range(len(stream)):
        changed = bytearray(stream)
        changed[position] ^= 1
        assert refuses(bytes(changed))


@pytest.mark.parametrize("kind", range(2, 256))
def test_frame_types_but_two_are_refused_even_if_they_authenticate(kind: int) -> None:
    with pytest.raises(SealedMessageError, match="type"):
        opened([FRAMES[0] + hostile_frame(KEYS, 1, kind, plaintext(b"data"))])
    with pytest.raises(SealedMessageError, match="type"):
        opened([hostile_frame(KEYS, 0, kind, head_plaintext(HEAD))])


def test_a_frame_type_changed_in_transit_is_refused() -> None:
    for frames in (FRAMES[:2], FRAMES):
        last = bytearray(frames[-1])
        last[4] ^= 1
        with pytest.raises(SealedMessageError, match="authenticate"):
            opened([b"".join(frames[:-1]), bytes(last)])


@pytest.mark.parametrize("position", [0, 1, 99])
def test_padding_that_is_not_zero_is_refused(position: int) -> None:
    zeros = bytearray(100)
    zeros[position] = 1
    with pytest.raises(SealedMessageError, match="not zero"):
        opened([FRAMES[0] + hostile_frame(KEYS, 1, 1, plaintext(b"data") + zeros)])


def test_data_longer_than_its_frame_is_refused() -> None:
    for size in (5, 0xFFFFFFFF):
        with pytest.raises(SealedMessageError, match="more data"):
            opened([FRAMES[0] + hostile_frame(KEYS, 1, 1, size.to_bytes(4, "big") + b"data")])


@pytest.mark.parametrize(
    "text", [plaintext(HEAD), head_plaintext(HEAD) + b"\0", plaintext(HEAD, 1023 - 14), plaintext(b"")]
)
def test_a_head_not_padded_to_a_multiple_of_1024_is_refused(text: bytes) -> None:
    with pytest.raises(SealedMessageError, match="frame 0"):
        opened([hostile_frame(KEYS, 0, 0, text)])


def test_a_head_may_be_padded_to_any_multiple_of_1024() -> None:
    frame = hostile_frame(KEYS, 0, 0, plaintext(HEAD, 3 * 1024 - 4 - len(HEAD)))
    assert opened([frame, hostile_frame(KEYS, 1, 1, plaintext(b""))])[0][1] == HEAD


def test_a_head_in_the_last_frame_is_refused() -> None:
    with pytest.raises(SealedMessageError, match="frame 0"):
        opened([hostile_frame(KEYS, 0, 1, head_plaintext(HEAD))])


def test_the_longest_head_passes_and_one_more_byte_does_not() -> None:
    longest = b"x" * MAX_HEAD_BYTES
    assert opened([sealed([(b"", 0)], head=longest)])[0][1] == longest
    with pytest.raises(SealedMessageError):
        FrameSealer(KEYS).seal_head(longest + b"x")
    with pytest.raises(SealedMessageError, match="frame 0"):
        opened([hostile_frame(KEYS, 0, 0, head_plaintext(longest + b"x"))])


@pytest.mark.parametrize("length", [0, 1, 16, 20, 65 * 1024 + 18, MIB, 0xFFFFFFFF])
def test_a_head_length_outside_its_bounds_is_refused_before_the_frame_arrives(length: int) -> None:
    with pytest.raises(SealedMessageError, match="length"):
        opened([length.to_bytes(4, "big")])


@pytest.mark.parametrize("length", [0, 20, MIB + 18, 1 << 24, 0xFFFFFFFF])
def test_a_body_length_outside_its_bounds_is_refused_before_the_frame_arrives(length: int) -> None:
    with pytest.raises(SealedMessageError, match="length"):
        opened([FRAMES[0], length.to_bytes(4, "big")])


def test_the_largest_frame_passes_and_one_more_byte_does_not() -> None:
    assert len(opened([sealed([(bytes(MAX_DATA_BYTES), 0)])])[1][1]) == MAX_DATA_BYTES
    for data, zeros in ((MAX_DATA_BYTES + 1, 0), (MAX_DATA_BYTES, 1), (0, MAX_DATA_BYTES + 1)):
        with pytest.raises(SealedMessageError):
            FrameSealer(KEYS).seal(FrameType.LAST, bytes(data), zeros=zeros)


def test_neither_end_goes_past_two_to_the_32_frames() -> None:
    sealer, opener = FrameSealer(KEYS), FrameOpener(KEYS)
    sealer._index = opener._index = MAX_FRAMES - 1
    last = sealer.seal(FrameType.MORE, b"last number")
    assert [bytes(frame.data) for frame in opener.feed(last)] == [b"last number"]
    with pytest.raises(SealedMessageError):
        sealer.seal(FrameType.LAST, b"")
    with pytest.raises(SealedMessageError, match="2\\^32"):
        list(opener.feed(last))


def test_equal_frames_look_different() -> None:
    sealer = FrameSealer(KEYS)
    assert len({sealer.seal(FrameType.MORE, b"same") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        *[(0, 1024), (1, 1024), (1024, 1024), (1025, 2048), (2049, 4096), (8192, 8192), (8193, 16384), (16384, 16384)],
        *[(16385, 17408), (17409, 18432), (1 << 20, 1 << 20), ((1 << 20) + 1, (1 << 20) + (1 << 15))],
    ],
)
def test_padded_sizes_known(size: int, padded: int) -> None:
    assert padded_size(size) == padded


@given(st.integers(0, 1 << 50))
def test_padded_size_is_stable_rising_and_at_most_12_percent_more(size: int) -> None:
    padded = padded_size(size)
    assert size <= padded <= padded_size(size + 1)
    assert padded_size(padded) == padded
    assert size <= 16 * 1024 or padded - size <= size * 0.12


def bodies() -> st.SearchStrategy[int]:
    return st.integers(0, 5000) | st.sampled_from(
        [MAX_DATA_BYTES + delta for delta in (-9, -1, 0, 1)] + [2 * MAX_DATA_BYTES + 7, 3 * MIB + 1]
    )


@given(bodies(), st.lists(st.integers(0, 1 << 24), max_size=4), st.booleans())
def test_cut_bodies_fit_their_frames_and_show_only_the_padded_size(size: int, at: list[int], padded: bool) -> None:  # noqa: FBT001  # hypothesis names its arguments
    body = bytes(size)
    found = [(bytes(data), zeros) for data, zeros in cut_body(pieces(body, at), padded=padded)]
    assert b"".join(data for data, _ in found) == body
    assert sum(zeros for _, zeros in found) == (padded_size(size) - size if padded else 0)
    assert all(len(data) + zeros <= MAX_DATA_BYTES for data, zeros in found)
    for same in ([body], (body,), tuple(pieces(body, at))):  # streamed, or in memory as a whole
        assert found == [(bytes(data), zeros) for data, zeros in cut_body(same, padded=padded)]
    check_padding([(len(data), zeros) for data, zeros in found])


def test_padding_that_does_not_fit_beside_the_data_follows_in_frames_without_data() -> None:
    found = [(len(data), zeros) for data, zeros in cut_body([bytes(MAX_DATA_BYTES)], padded=True)]
    assert found == [(MAX_DATA_BYTES, 0), (0, 4)]


def test_cut_body_takes_any_buffer() -> None:
    body: list[Any] = [memoryview(b"abcd").cast("H"), bytearray(b"ef"), b""]
    assert list(cut_body(body, padded=False)) == list(cut_body(tuple(body), padded=False)) == [(b"abcdef", 0)]


def check_padding(frames: list[tuple[int, int]]) -> None:
    bounds = PaddingBounds()
    for number, (size, zeros) in enumerate(frames, start=1):
        kind = FrameType.LAST if number == len(frames) else FrameType.MORE
        bounds.check(Frame(type=kind, data=memoryview(bytes(size)), zeros=zeros))


@pytest.mark.parametrize(
    "frames",
    [
        [(10, 5), (1, 0)],
        [(10, 0), (0, 5), (1, 0)],
        [(0, 1), (1, 0)],
        [(0, 1024), (10, 0)],
    ],
)
def test_data_after_padding_is_refused(frames: list[tuple[int, int]]) -> None:
    with pytest.raises(SealedMessageError, match="end of the body"):
        check_padding(frames)


@pytest.mark.parametrize(
    "frames", [[(0, 0), (1, 0)], [(5, 0), (0, 0), (5, 0)], [(0, 0), (0, 0)], [(5, 0), (0, 0), (0, 1019)]]
)
def test_a_frame_that_holds_nothing_before_the_last_is_refused(frames: list[tuple[int, int]]) -> None:
    with pytest.raises(SealedMessageError, match="holds nothing"):
        check_padding(frames)


def test_a_last_frame_may_hold_nothing() -> None:
    check_padding([(0, 0)])
    check_padding([(5, 0), (0, 0)])
    check_padding([(5, 1019), (0, 0)])


@pytest.mark.parametrize(
    ("size", "most"), [(1, 1023), (1000, 24), (1024, 0), (1025, 1023), (16385, 1023), (MAX_DATA_BYTES, 4)]
)
def test_padding_up_to_the_padded_size_passes_and_one_more_byte_does_not(size: int, most: int) -> None:
    check_padding([(size, most)])
    check_padding([(size, 0), (0, most)])
    check_padding([(size, most // 2), (0, most - most // 2)])
    for frames in ([(size, most + 1)], [(size, 0), (0, most + 1)], [(size, most), (0, 1)]):
        with pytest.raises(SealedMessageError, match="more padding"):
            check_padding(frames)


def test_an_empty_body_is_padded_to_1024_at_most() -> None:
    check_padding([(0, 1024)])
    check_padding([(0, 512), (0, 512)])
    for frames in ([(0, 1025)], [(0, 1024), (0, 1)]):
        with pytest.raises(SealedMessageError, match="more padding"):
            check_padding(frames)
