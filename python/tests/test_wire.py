"""The decoder at its edges, and the credit arithmetic."""

from __future__ import annotations

import marshal
import struct

import pytest
from caddysnake import wire
from caddysnake.wire import Body, Decoder, ProtocolError
from driver import DATA, END, REQUEST, RESET, frame
from hypothesis import given, settings
from hypothesis import strategies as st

HEAD = {"a": 1, "b": "ü", "c": [(b"x", b"y")], "d": None}


def feed(decoder: Decoder, data: bytes) -> list[wire.Frame]:
    """Gives bytes to the decoder as a socket would, and takes all frames."""
    frames = []
    view = memoryview(data)
    while view:
        room = decoder.room()
        assert len(room) > 0
        size = min(len(room), len(view))
        room[:size] = view[:size]
        decoder.fill(size)
        view = view[size:]
        while (got := decoder.next()) is not None:
            frames.append(got)
    return frames


def test_a_frame_has_type_stream_head_and_data() -> None:
    assert feed(Decoder(), frame(REQUEST | END, 7, HEAD, b"body")) == [(REQUEST | END, 7, HEAD, b"body")]
    assert feed(Decoder(), frame(RESET, 2**32 - 1)) == [(RESET, 2**32 - 1, None, b"")]
    assert feed(Decoder(), frame(REQUEST, 1, HEAD)) == [(REQUEST, 1, HEAD, b"")]
    assert feed(Decoder(), frame(DATA, 1, None, b"x")) == [(DATA, 1, None, b"x")]


def test_a_stream_split_at_every_byte_gives_the_same_frames() -> None:
    data = frame(REQUEST, 1, HEAD, b"first") + frame(DATA | END, 1, None, b"last") + frame(RESET, 2)
    whole = feed(Decoder(), data)
    assert len(whole) == 3
    for at in range(len(data) + 1):
        decoder = Decoder()
        assert feed(decoder, data[:at]) + feed(decoder, data[at:]) == whole
    decoder = Decoder()
    assert [got for byte in data for got in feed(decoder, bytes([byte]))] == whole


def test_a_truncated_frame_gives_nothing_and_does_not_disturb_the_next() -> None:
    decoder = Decoder()
    data = frame(DATA, 1, None, b"abc")
    assert feed(decoder, data[:-1]) == []
    assert feed(decoder, data[-1:] + data) == [(DATA, 1, None, b"abc")] * 2


def test_data_is_kept_when_the_buffer_is_used_again() -> None:
    decoder = Decoder()
    (first,) = feed(decoder, frame(DATA, 1, None, b"a" * 1000))
    feed(decoder, frame(DATA, 1, None, b"b" * 1000))
    assert first[3] == b"a" * 1000


def test_the_largest_frame_passes_and_its_memory_is_given_back() -> None:
    decoder = Decoder()
    big = frame(DATA, 1, None, bytes(wire.MAX_FRAME))
    small = frame(DATA, 2, None, b"x")
    got = feed(decoder, small + big + small)
    assert [len(data) for *_, data in got] == [1, wire.MAX_FRAME, 1]
    assert len(decoder.room()) <= 1 << 20


@pytest.mark.parametrize(
    ("length", "head"),
    [(wire.MAX_FRAME + 1, 0), (2**32 - 1, 0), (10, 11), (0, 1), (0, 2**24 - 1), (2**32 - 1, 2**24 - 1)],
)
def test_threat_4_a_frame_over_the_cap_or_with_a_head_longer_than_itself_is_refused(length: int, head: int) -> None:
    decoder = Decoder()
    before = len(decoder.room())
    with pytest.raises(ProtocolError):
        feed(decoder, struct.pack("<III", length, 1, head << 8 | DATA))
    assert len(decoder.room()) <= before  # nothing was allocated for it


@pytest.mark.parametrize("head", [b"\x00", b"?", b"s\xff\xff\xff\x7f", b"u\x01\x00\x00\x00\xff", b"(\x02\x00\x00\x00N"])
def test_threat_4_a_head_that_does_not_decode_is_refused(head: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(Decoder(), struct.pack("<III", len(head), 1, len(head) << 8 | REQUEST) + head)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)
frames = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 2**32 - 1), values.filter(lambda v: v is not None), st.binary()),
    max_size=5,
)


@given(frames, st.lists(st.integers(1, 200), min_size=1))
def test_frames_survive_any_split(made: list[tuple[int, int, object, bytes]], steps: list[int]) -> None:
    data = b"".join(frame(*parts) for parts in made)
    decoder = Decoder()
    got = []
    at = turn = 0
    while at < len(data):
        step = steps[turn % len(steps)]
        got += feed(decoder, data[at : at + step])
        at, turn = at + step, turn + 1
    assert got == made


# The head is left out: Caddy alone writes what marshal reads, and marshal is not made to be fuzzed.
@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 100) | st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary()), max_size=6)
)
def test_threat_4_any_bytes_give_frames_or_a_protocol_error(parts: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(struct.pack("<III", length, 1, kind) + rest for length, kind, rest in parts)
    decoder = Decoder()
    try:
        got = feed(decoder, data)
    except ProtocolError:
        return
    assert sum(12 + len(rest) for *_, rest in got) <= len(data)
    assert all(head is None for _, _, head, _ in got)


def test_the_first_part_of_a_body_is_free_and_the_rest_needs_credit() -> None:
    body = Body(b"first")
    assert body.grant() == 0  # the app has not asked for more than there is
    assert body.take() == b"first"
    assert body.take() is None
    assert body.waiting
    with pytest.raises(ProtocolError):
        Body(b"").feed(b"x", False)
    assert body.grant() == wire.WINDOW
    assert body.grant() == 0
    body.feed(b"x" * wire.WINDOW, False)
    with pytest.raises(ProtocolError):
        body.feed(b"x", False)


def test_credit_is_renewed_when_half_is_consumed_and_never_exceeds_the_window() -> None:
    body = Body(b"")
    body.grant()
    part = b"x" * (wire.WINDOW // 4)
    for _ in range(4):
        body.feed(part, False)
    assert body.take() == part
    assert body.grant() == 0
    assert body.take() == part
    assert body.grant() == wire.WINDOW // 2
    body.feed(part, False)
    body.feed(part, True)
    assert body.grant() == 0
    assert not body.finished
    while body.take():
        pass
    assert body.finished
    assert body.grant() == 0
    with pytest.raises(ProtocolError):
        body.feed(b"", True)


def test_what_the_worker_writes_is_what_the_description_says() -> None:
    data = wire.log("warn", "a message", count=1)
    length, stream, word = struct.unpack_from("<III", data)
    assert (length, stream, word & 0xFF, word >> 8) == (len(data) - 12, 0, 12, len(data) - 12)
    assert marshal.loads(data[12:]) == ("warn", "a message", {"count": 1})
    assert wire.credit(3, 70000) == frame(4, 3, None, (70000).to_bytes(4, "little"))
    assert wire.credit_size((70000).to_bytes(4, "little")) == 70000
    with pytest.raises(ProtocolError):
        wire.credit_size(b"123")
