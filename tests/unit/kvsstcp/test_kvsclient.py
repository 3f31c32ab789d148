"""`kvsclient`, without a server: the client is a stand-in that writes down what it is asked for."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp import client, kvsclient
from disbatch.kvsstcp.client import DisconnectedError
from disbatch.kvsstcp.kvsclient import Step, describe, perform
from disbatch.kvsstcp.store import Store
from disbatch.kvsstcp.wire import Limits, ProtocolError, RequestParser, encode_monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.kvsstcp.store import Snapshot

Call = tuple[object, ...]


class Client:
    """Stands for the client: `calls` are what it was asked for, `values` what it answers with, in order.

    `failure` keeps it from connecting, `refusal` is what a server has against what it was asked for.
    """

    calls: ClassVar[list[Call]]
    values: ClassVar[list[bytes | BaseException]]
    failure: ClassVar[Exception | None]
    refusal: ClassVar[Exception | None]

    def __init__(self, address: str | None, *, retry: int) -> None:
        self.calls.append(("connect", address, retry))
        if self.failure is not None:
            raise self.failure

    def put(self, key: bytes, value: bytes, encoding: object) -> None:
        self.calls.append(("put", key, value, encoding))

    def get(self, key: bytes, encoding: object, timeout: float | None) -> object:
        return self.answer("get", key, encoding, timeout)

    def view(self, key: bytes, encoding: object, timeout: float | None) -> object:
        return self.answer("view", key, encoding, timeout)

    def answer(self, *call: object) -> bytes:
        self.calls.append(call)
        value = self.values.pop(0)
        if isinstance(value, BaseException):
            raise value
        return value

    def dump(self) -> Snapshot:
        self.calls.append(("dump",))
        return ([1, 2, 3, 4], [], [])

    def monkey(self, mkey: bytes, value: bytes) -> None:
        self.calls.append(("monitor", mkey, value))

    def confirm(self) -> None:
        self.calls.append(("confirm",))
        if self.refusal is not None:
            raise self.refusal

    def shutdown(self) -> None:
        self.calls.append(("shutdown",))

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    kind = type("ThisClient", (Client,), {"calls": [], "values": [], "failure": None, "refusal": None})
    monkeypatch.setattr(kvsclient, "KVSClient", kind)
    return kind


def test_the_client_can_be_imported_by_its_old_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert kvsclient.KVSClient is client.KVSClient


# What is done


def test_options_are_done_in_the_order_given(stand_in: type[Client], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    stand_in.values += [b"seen", b"first", b"second"]
    options = "h:1 -p a 1 -v a -g a -m mm a:gp -d --get b -S"
    assert kvsclient.main(options.split()) == 0
    assert stand_in.calls == [
        ("connect", "h:1", 0),
        ("put", b"a", b"1", False),
        ("confirm",),
        ("view", b"a", False, None),
        ("get", b"a", False, None),
        ("monitor", b"mm", b"a:gp"),
        ("confirm",),
        ("dump",),
        ("get", b"b", False, None),
        ("shutdown",),
        ("close",),
    ]
    assert capfdbinary.readouterr() == (b"seen\nfirst\ngets 1, puts 2, views 3, waits 4\nsecond\n", b"")


def test_long_options_mean_the_same(stand_in: type[Client]) -> None:
    stand_in.values += [b""]
    options = "--timeout 2 --retry 3 --put a 1 --view a --monkey mm a: --dump --shutdown"
    assert kvsclient.main(options.split()) == 0
    assert stand_in.calls == [
        ("connect", None, 3),
        ("put", b"a", b"1", False),
        ("confirm",),
        ("view", b"a", False, 2.0),
        ("monitor", b"mm", b"a:"),
        ("confirm",),
        ("dump",),
        ("shutdown",),
        ("close",),
    ]


def test_without_an_address_the_client_looks_for_it(stand_in: type[Client]) -> None:
    kvsclient.main(["-d"])
    assert stand_in.calls[0] == ("connect", None, 0)


def test_a_time_out_is_for_what_comes_after_it(stand_in: type[Client]) -> None:
    stand_in.values += [b"", b"", b""]
    kvsclient.main(["-g", "a", "-T", "0.5", "-g", "b", "-T", "0", "-v", "c"])
    assert stand_in.calls[1:-1] == [("get", b"a", False, None), ("get", b"b", False, 0.5), ("view", b"c", False, 0.0)]


@pytest.mark.parametrize("options", ["h:1", "h:1 -T 5", "-R 2 -T 5"])
def test_nothing_to_do_is_a_mistake(options: str, stand_in: type[Client], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        kvsclient.main(options.split())
    assert ended.value.code == 2
    assert "nothing to do: give at least one of -p, -g, -v, -d, -m, -S" in capsys.readouterr().err
    assert not stand_in.calls


def test_a_tag_goes_with_its_value(stand_in: type[Client]) -> None:
    perform("h:1", [Step("put", ("k", "[1]", "JSON"))], io.BytesIO())
    assert stand_in.calls[1] == ("put", b"k", b"[1]", b"JSON")


def test_the_shell_s_bytes_are_passed_on_as_they_are(stand_in: type[Client]) -> None:
    perform("h:1", [Step("put", (os.fsdecode(b"\xff\xe9"), os.fsdecode(b"\x80 \xc3\xa9")))], io.BytesIO())
    assert stand_in.calls[1] == ("put", b"\xff\xe9", b"\x80 \xc3\xa9", False)


@pytest.mark.parametrize("value", [b"", b"\xff\x00\n", b"\x80\x04K\x07."])
def test_a_value_is_written_as_it_is_with_a_line_end_after_it(stand_in: type[Client], value: bytes) -> None:
    stand_in.values += [value, value]
    output = io.BytesIO()
    perform("h:1", [Step("get", ("k",)), Step("view", ("k",))], output)
    assert output.getvalue() == value + b"\n" + value + b"\n"


class Output(io.BytesIO):
    """Notes, among what the client was asked for, what it held at each flush."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

    def flush(self) -> None:
        self.calls.append(("flushed", self.getvalue()))


def test_what_is_found_is_written_before_the_next_step_can_wait(stand_in: type[Client]) -> None:
    stand_in.values += [b"1", b"2"]
    perform("h:1", [Step("view", ("k",)), Step("dump"), Step("get", ("k",))], Output(stand_in.calls))
    assert stand_in.calls[1:-1] == [
        ("view", b"k", False, None),
        ("flushed", b"1\n"),
        ("dump",),
        ("flushed", b"1\ngets 1, puts 2, views 3, waits 4\n"),
        ("get", b"k", False, None),
        ("flushed", b"1\ngets 1, puts 2, views 3, waits 4\n2\n"),
    ]


def test_the_connection_is_closed_after_a_failure(stand_in: type[Client]) -> None:
    stand_in.values += [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        perform("h:1", [Step("get", ("k",)), Step("dump")], io.BytesIO())
    assert stand_in.calls[1:] == [("get", b"k", False, None), ("close",)]


def test_no_connection_is_made_for_nothing(stand_in: type[Client]) -> None:
    perform("h:1", [Step("timeout", ("1",)), Step("retry", ("2",))], io.BytesIO())
    assert not stand_in.calls


# What goes wrong


@pytest.mark.parametrize(
    "failure", [TimeoutError("no value for 'k' within 1.0 s"), DisconnectedError("h:1 has ended the connection")]
)
def test_a_failure_is_one_line_after_what_was_there(
    stand_in: type[Client], failure: Exception, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    stand_in.values += [b"before", failure]
    assert kvsclient.main(["h:1", "-g", "a", "-g", "k", "-p", "a", "1"]) == 1
    assert capfdbinary.readouterr() == (b"before\n", f"kvsclient: error: {failure}\n".encode())
    assert stand_in.calls[-2:] == [("get", b"k", False, None), ("close",)]


def test_a_failure_to_connect_is_one_line_of_the_program_that_was_called(
    stand_in: type[Client], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in.failure = DisconnectedError("cannot connect to h:1: Connection refused")
    assert kvsclient.report_errors("kvsstcp", "h:1", [Step("dump")]) == 1
    assert capfd.readouterr() == ("", "kvsstcp: error: cannot connect to h:1: Connection refused\n")


@pytest.mark.parametrize("options", ["-p k v", "-m mm k:g"])
def test_what_the_server_refuses_is_one_line(
    options: str, stand_in: type[Client], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in.refusal = DisconnectedError("h:1 has ended the connection")
    assert kvsclient.main(["h:1", *options.split(), "-d"]) == 1
    assert capfd.readouterr() == ("", "kvsclient: error: h:1 has ended the connection\n")
    assert ("dump",) not in stand_in.calls


def test_events_that_there_are_not_are_a_mistake_before_anything_is_done(
    stand_in: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        kvsclient.main(["h:1", "-p", "k", "v", "-m", "mm", "k:x"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "argument -m/--monkey: a key, a colon and any of the letters g, p, v, w are due, not 'k:x'" in line
    assert not stand_in.calls


def test_an_interrupt_ends_it_in_silence(stand_in: type[Client], capfd: pytest.CaptureFixture[str]) -> None:
    stand_in.values += [KeyboardInterrupt()]
    assert kvsclient.main(["h:1", "-g", "k"]) == 130
    assert capfd.readouterr() == ("", "")


@contextmanager
def standard_output(descriptor: int) -> Iterator[None]:
    """Have this process's standard output, buffered as Python has it, lead elsewhere."""
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        with open(1, "w", closefd=False) as stdout, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            yield
        # The flush of that close is the one that Python does at its end: there is to be nothing left to complain of.
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize("options", ["-d", "-g k"])
def test_a_reader_that_has_gone_ends_it_in_silence(
    options: str, stand_in: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.values += [b"for no one"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb"), standard_output(writing):
        assert kvsclient.main(["h:1", *options.split(), "-p", "a", "1"]) == 1
    assert capsys.readouterr().err == ""
    assert stand_in.calls[-1] == ("close",)


@pytest.mark.parametrize("options", ["-d", "-g k"])
def test_a_disk_that_is_full_is_one_line(
    options: str, stand_in: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.values += [b"lost"]
    with open("/dev/full", "wb") as full, standard_output(full.fileno()):
        assert kvsclient.main(["h:1", *options.split()]) == 1
    assert capsys.readouterr().err == f"kvsclient: error: cannot write: {os.strerror(errno.ENOSPC)}\n"


# What is shown


def test_a_store_is_described_in_lines() -> None:
    snapshot: Snapshot = (
        [1, 5, 1, 2],
        [(b"wanted", 2)],
        [
            (b"json", 1, (b"JSON", None, 3)),
            (b"k", 2, (b"ASTR", b"value")),
            (b"long", 1, (b"ASTR", b"<xx...xx>", 62)),
        ],
    )
    assert describe(snapshot).splitlines() == [
        "gets 1, puts 5, views 1, waits 2",
        "wanted: 2 waiting",
        "json: 1 held, newest JSON 3 bytes",
        "k: 2 held, newest ASTR value",
        "long: 1 held, newest ASTR <xx...xx>",
    ]


def test_counts_that_a_newer_server_adds_are_left_out() -> None:
    assert describe(([1, 2, 3, 4, 5], [], [])) == "gets 1, puts 2, views 3, waits 4\n"


texts = st.binary(max_size=60) | st.text(max_size=20).map(str.encode)


@given(st.lists(st.tuples(texts, st.binary(min_size=4, max_size=4) | st.just(b"ASTR"), texts), max_size=4))
def test_nothing_in_a_store_can_move_a_cursor_or_add_a_line(puts: list[tuple[bytes, bytes, bytes]]) -> None:
    store: Store[str] = Store()
    store.get("client", b"\x1b[2J\n")
    for key, tag, value in puts:
        store.put(key, tag, value)
    _, waiting, held = snapshot = store.snapshot()
    lines = describe(snapshot).removesuffix("\n").split("\n")
    assert len(lines) == 1 + len(waiting) + len(held)
    assert all(line.isascii() and line.isprintable() for line in lines)


# What options take


@pytest.mark.parametrize(("text", "read"), [("0", 0.0), ("1.5", 1.5), ("1e3", 1000.0), (" 2 ", 2.0)])
def test_a_time_out_is_a_number_of_seconds(text: str, read: float) -> None:
    assert kvsclient.seconds(text) == read


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1e9", "1e400", "0x1"])
def test_what_is_no_time_out_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"a number of seconds is due, not '{text}'"):
        kvsclient.seconds(text)


@pytest.mark.parametrize(("text", "read"), [("0", 0), ("007", 7), ("10", 10)])
def test_a_count_of_tries_is_a_number(text: str, read: int) -> None:
    assert kvsclient.count(text) == read


@pytest.mark.parametrize("text", ["", "-1", "1.0", "x", "²"])
def test_what_is_no_count_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"a number from 0 on is due, not '{text}'"):
        kvsclient.count(text)


@pytest.mark.parametrize("text", ["k:g", ":gpvw", "k:", "a:b:pp", ":"])
def test_what_is_watched_is_a_key_and_events(text: str) -> None:
    assert kvsclient.watched(text) == text


@given(st.text("gpvw:x \n", max_size=6))
def test_what_the_server_would_not_watch_is_refused(text: str) -> None:
    parser = RequestParser(Limits())
    try:
        kvsclient.watched(text)
    except argparse.ArgumentTypeError as error:
        assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half
        with pytest.raises(ProtocolError):
            list(parser.feed(encode_monitor(b"m", text.encode())))
    else:
        assert list(parser.feed(encode_monitor(b"m", text.encode())))


@given(st.text(max_size=8))
def test_any_text_of_an_option_is_read_or_refused(text: str) -> None:
    for read in (kvsclient.seconds, kvsclient.count):
        try:
            assert read(text) >= 0
        except argparse.ArgumentTypeError as error:
            assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half
