"""`wire`, alone: the bytes and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp.wire import (
    ASTR,
    EVENTS,
    PYPK,
    Close,
    Down,
    Dump,
    Get,
    Limits,
    Monitor,
    ProtocolError,
    Put,
    ReplyParser,
    Request,
    RequestParser,
    View,
    encode_close,
    encode_down,
    encode_dump,
    encode_dump_reply,
    encode_get,
    encode_monitor,
    encode_put,
    encode_put_header,
    encode_reply,
    encode_view,
)

keys = st.binary(max_size=12)
values = st.binary(max_size=40)
tags = st.binary(min_size=4, max_size=4)
requests = st.one_of(
    st.builds(Put, keys, tags, values),
    st.builds(Get, keys),
    st.builds(View, keys),
    st.builds(Monitor, keys, keys, st.sets(st.sampled_from("gpvw")).map(lambda some: "".join(sorted(some)).encode())),
    st.sampled_from([Dump(), Close(), Down()]),
)


def encode(request: Request) -> bytes:  # noqa: PLR0911 - one for each request
    match request:
        case Put(key, tag, value):
            return encode_put(key, tag, value)
        case Get(key):
            return encode_get(key)
        case View(key):
            return encode_view(key)
        case Monitor(monitor_key, key, events):
            return encode_monitor(monitor_key, key + b":" + events)
        case Dump():
            return encode_dump()
        case Close():
            return encode_close()
        case Down():
            return encode_down()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def parse(chunks: list[bytes], limits: Limits = Limits()) -> tuple[list[Request], str]:  # noqa: B008 - frozen
    parser, found = RequestParser(limits), list[Request]()
    try:
        for chunk in chunks:
            found.extend(parser.feed(chunk))
    except ProtocolError as error:
        return found, str(error)
    return found, "partial" if parser.partial else ""


def test_the_bytes_of_each_request() -> None:
    assert encode_put(b"key", b"JSON", b"[1]") == b"put_         3keyJSON         3[1]"
    assert encode_put_header(b"key", b"JSON", 3) == b"put_         3keyJSON         3"
    assert encode_get(b"key") == b"get_         3key"
    assert encode_view(b"") == b"view         0"
    assert encode_monitor(b"m", b"k:gp") == b"mkey         1mASTR         4k:gp"
    assert (encode_dump(), encode_close(), encode_down()) == (b"dump", b"clos", b"down")


def test_the_bytes_of_replies() -> None:
    assert encode_reply(b"HTML", b"<p>") == b"HTML         3<p>"
    assert encode_dump_reply(b"pickle") == b"         6pickle"


@given(st.lists(requests, max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_any_chunking_gives_the_same_requests(sent: list[Request], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    assert parse(pieces(data, cuts)) == (sent, "")
    assert parse([data[i : i + 1] for i in range(len(data))]) == (sent, "")


@given(st.binary(max_size=80), st.lists(st.integers(0, 100), max_size=4), st.lists(requests, max_size=2))
def test_random_bytes_raise_a_protocol_error_or_nothing_however_they_are_cut(
    noise: bytes, cuts: list[int], before: list[Request]
) -> None:
    data = b"".join(map(encode, before)) + noise
    assert parse(pieces(data, cuts), Limits(20, 50)) == parse([data], Limits(20, 50))


@given(st.sampled_from([b"put_", b"get_", b"view", b"mkey"]), st.binary(min_size=10, max_size=10), st.binary())
def test_random_lengths_raise_a_protocol_error_or_nothing(operation: bytes, field: bytes, rest: bytes) -> None:
    parse([operation + field + rest], Limits(50, 50))


@pytest.mark.parametrize("field", [b"         3", b"0000000003", b"3         ", b"   03     "])
def test_lengths_are_read_leniently(field: bytes) -> None:
    assert parse([b"get_" + field + b"key"]) == ([Get(b"key")], "")


@pytest.mark.parametrize(
    "field", [b"          ", b"        -3", b"        +3", b"       1_0", b"         \n", b"      0x10"]
)
def test_a_length_that_is_no_number_is_named(field: bytes) -> None:
    assert parse([b"get_" + field]) == ([], f"bad length {field!r} of a key")


def test_an_unknown_operation_is_named_after_the_requests_before_it() -> None:
    assert parse([b"dumpquit" + b"dump"]) == ([Dump()], "unknown operation b'quit'")


def test_the_error_stays() -> None:
    parser = RequestParser(Limits())
    for _ in range(2):
        with pytest.raises(ProtocolError):
            list(parser.feed(b"quit"))


def test_too_large_a_value_is_refused_at_its_header() -> None:
    limits = Limits(key=3, value=5)
    assert parse([encode_put(b"key", ASTR, b"12345")], limits) == ([Put(b"key", ASTR, b"12345")], "")
    header = encode_put_header(b"key", ASTR, 6)
    assert parse([header[:-1]], limits) == ([], "partial")
    assert parse([header], limits) == ([], "a value of 6 bytes is over the limit of 5")
    assert parse([encode_get(b"long")[:14]], limits) == ([], "a key of 4 bytes is over the limit of 3")


def test_a_key_of_64_kib_and_a_value_of_1_gib_are_the_most_by_default() -> None:
    largest = encode_put_header(b"k" * 65_536, ASTR, 1_073_741_824)
    assert parse([largest]) == ([], "partial")
    assert parse([largest[:-1] + b"5"]) == ([], "a value of 1073741825 bytes is over the limit of 1073741824")
    assert parse([encode_get(b"k" * 65_537)]) == ([], "a key of 65537 bytes is over the limit of 65536")


def test_limits_can_change_between_two_requests_of_one_piece() -> None:
    parser = RequestParser(Limits(key=3, value=3))
    found = parser.feed(encode_get(b"key") + encode_get(b"longer"))
    assert next(found) == Get(b"key")
    parser.limits = Limits()
    assert list(found) == [Get(b"longer")]


def test_what_was_not_pulled_comes_first_the_next_time() -> None:
    parser = RequestParser(Limits())
    next(parser.feed(b"dumpclos"))
    assert list(parser.feed(b"down")) == [Close(), Down()]


def test_the_memory_of_what_is_fed_may_be_used_again() -> None:
    parser, buffer = RequestParser(Limits()), bytearray(encode_get(b"key"))
    found = parser.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert list(found) == [Get(b"key")]


@pytest.mark.parametrize("watched", [b"", b"key", b"key:x", b"key:gx"])
def test_a_monitor_without_key_and_events_is_refused(watched: bytes) -> None:
    assert parse([encode_monitor(b"m", watched)])[1].startswith(f"bad value {watched!r} of mkey")


def test_a_monitored_key_may_hold_colons() -> None:
    assert parse([encode_monitor(b"m", b"a:b:" + EVENTS)])[0] == [Monitor(b"m", b"a:b", EVENTS)]


@pytest.mark.parametrize("tag", [b"", b"AST", b"ASTRO"])
def test_a_tag_of_another_size_is_not_written(tag: bytes) -> None:
    with pytest.raises(ValueError, match="a tag has 4 bytes"):
        encode_put(b"key", tag, b"")


def test_a_length_of_eleven_digits_is_not_written() -> None:
    with pytest.raises(ValueError, match="10 digits"):
        encode_put_header(b"key", ASTR, 10**10)


@given(st.lists(st.tuples(tags, values), max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_any_chunking_gives_the_same_replies(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    parser = ReplyParser()
    data = b"".join(encode_reply(tag, value) for tag, value in sent)
    assert [reply for piece in pieces(data, cuts) for reply in parser.feed(piece)] == sent
    assert not parser.partial


@given(st.binary(max_size=60))
def test_random_replies_raise_a_protocol_error_or_nothing(noise: bytes) -> None:
    parser = ReplyParser(max_value=20)
    try:
        parser.feed(noise)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            parser.feed(b"")


def test_a_reply_to_a_dump_has_no_tag_and_comes_once() -> None:
    parser = ReplyParser()
    parser.expect_dump()
    data = encode_dump_reply(b"pickle") + encode_reply(ASTR, b"value")
    assert [reply for i in range(len(data)) for reply in parser.feed(data[i : i + 1])] == [
        (PYPK, b"pickle"),
        (ASTR, b"value"),
    ]


def test_too_large_a_reply_is_refused() -> None:
    with pytest.raises(ProtocolError, match="a value of 11 bytes is over the limit of 10"):
        ReplyParser(max_value=10).feed(b"ASTR        11")


def test_a_large_value_comes_whole_out_of_small_pieces() -> None:
    # 4,096 pieces: a parser that went over all it has at each of them would take minutes here.
    size, piece = 1 << 24, bytes(4096)
    parser = RequestParser(Limits())
    assert list(parser.feed(encode_put_header(b"key", ASTR, size))) == []
    found = [request for _ in range(size // len(piece)) for request in parser.feed(piece)]
    assert found == [Put(b"key", ASTR, bytes(size))]
