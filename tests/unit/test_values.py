from __future__ import annotations

import os
import re
import subprocess

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from disbatch.errors import UsageError
from disbatch.values import (
    Address,
    SshNode,
    address,
    at_least_one,
    at_least_zero,
    cores_per_task,
    log_level,
    mail_address,
    mail_server_of_environment,
    one_line,
    path,
    seconds,
    server_address,
    shell_word,
    ssh_nodes,
    ssh_nodes_of_environment,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no host; write HOST:N, for example localhost:4"),
        (" , ", "it names no host; write HOST:N, for example localhost:4"),
        ("a", "'a' has no core count; write it as HOST:N, for example 'a:4'"),
        ("a:1,b", "'b' has no core count; write it as HOST:N, for example 'b:4'"),
        (":4", "':4' names no host; write it as HOST:N, for example 'localhost:4'"),
        ("a:", "the core count of 'a' must be a whole number of at least 1, not ''"),
        ("a:0", "the core count of 'a' must be a whole number of at least 1, not '0'"),
        ("a:-4", "the core count of 'a' must be a whole number of at least 1, not '-4'"),
        ("a:1.5", "the core count of 'a' must be a whole number of at least 1, not '1.5'"),
        ("a:x", "the core count of 'a' must be a whole number of at least 1, not 'x'"),
        ("a:100001", "the core count of 'a' may be 100000 at most, not 100001"),
        ("[a:4", "'[a' is no host name"),
        ("[fd00::1]", "'[fd00::1]' has no core count; write it as HOST:N, for example '[fd00::1]:4'"),
        ("fd00::4", "'fd00::4' has too many colons; write an IPv6 address as [ADDRESS]:N: '[fd00::1]:4'"),
        ("a b:4", "'a b' is no host name"),
        ("-oProxyCommand=rm:4", "'-oProxyCommand=rm' is no host name"),
        ("a\x1b[2J:4", r"'a\x1b[2J' is no host name"),
        ("\udcff:4", r"'\udcff' is no host name"),
        ("a\nb", r"'a\nb' has no core count; write it as HOST:N, for example 'a\nb:4'"),
    ],
)
def test_a_bad_list_of_hosts_is_complained_about(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ssh_nodes(text)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("localhost:4", (SshNode("localhost", 4),)),
        (" a:1 ,, b:02,", (SshNode("a", 1), SshNode("b", 2))),
        ("me@host.example.org:3", (SshNode("me@host.example.org", 3),)),
        ("[::1]:4", (SshNode("::1", 4),)),
    ],
)
def test_a_list_of_hosts_is_read(text: str, nodes: tuple[SshNode, ...]) -> None:
    assert ssh_nodes(text) == nodes


def test_hosts_may_come_from_the_environment() -> None:
    assert ssh_nodes_of_environment({"DISBATCH_SSH_NODELIST": "a:1,b:2"}) == (SshNode("a", 1), SshNode("b", 2))


@pytest.mark.parametrize("environment", [{}, {"DISBATCH_SSH_NODELIST": ""}])
def test_no_hosts_anywhere_is_a_mistake(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no resources to run on") as error:
        ssh_nodes_of_environment(environment)
    assert error.value.hint == "name hosts and their cores, for example -s localhost:4"


def test_a_bad_list_in_the_environment_is_named_as_such() -> None:
    with pytest.raises(UsageError, match=r"^DISBATCH_SSH_NODELIST: 'a' has no core count"):
        ssh_nodes_of_environment({"DISBATCH_SSH_NODELIST": "a"})


@pytest.mark.parametrize(
    ("text", "read", "shown"),
    [
        ("host:80", Address("host", 80), "host:80"),
        ("127.0.0.1:0", Address("127.0.0.1", 0), "127.0.0.1:0"),
        (":65535", Address("", 65535), ":65535"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        ("::1:80", Address("::1", 80), "[::1]:80"),
    ],
)
def test_an_address_is_read_and_shown(text: str, read: Address, shown: str) -> None:
    assert address(text) == read
    assert str(read) == shown
    assert address(shown) == read


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:x", "host:-1", "host:65536", "host:1.0", "host:²", "[::1:80", "::1]:80"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address; write it as HOST:PORT"):
        address(text)


def test_a_server_that_runs_has_a_host_and_a_port() -> None:
    assert server_address("host:80") == Address("host", 80)
    assert server_address("[::1]:65535") == Address("::1", 65535)


@pytest.mark.parametrize("text", ["Tasks", "host:0", ":80", ":0", "host:65536", "ho\nst:80", ""])
def test_what_is_no_address_of_a_server_is_refused_with_a_word_on_the_option_alone(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address of a server; write .*; the option alone has to") as error:
        server_address(text)
    assert str(error.value).isprintable()


def test_a_least_number_is_named() -> None:
    assert (at_least_zero("0"), at_least_zero("7"), at_least_one("1")) == (0, 7, 1)
    with pytest.raises(ValueError, match="at least 0, not '-1'"):
        at_least_zero("-1")
    with pytest.raises(ValueError, match="at least 1, not '0'"):
        at_least_one("0")


@pytest.mark.parametrize(("text", "value"), [("10", 10.0), ("0.1", 0.1), ("1e3", 1000.0), (" 2.5 ", 2.5)])
def test_a_time_is_in_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "0.09", "-1", "inf", "nan", "1 s", "ten", "1e999", "1000001"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it must be a number of seconds from 0\.1 to 1000000, not ") as error:
        seconds(text)
    assert repr(text) in str(error.value)


def test_a_level_of_a_log_may_be_spelled_in_small_letters() -> None:
    assert log_level("Debug") == "DEBUG"
    with pytest.raises(ValueError, match=r"it must be one of CRITICAL, .*, not 'foo'"):
        log_level("foo")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("plain/name_1.txt", "plain/name_1.txt"),
        ("it's here", """'it'"'"'s here'"""),
        ("grüße", "'grüße'"),
        ("", "''"),
        ("u\udcff8", r"$'u\3778'"),
        ("a\nb'\\", r"$'a\012b\047\134'"),
    ],
)
def test_a_word_for_a_shell(text: str, word: str) -> None:
    assert shell_word(text) == word


@given(st.binary(min_size=1).filter(lambda name: 0 not in name))
@settings(max_examples=settings().max_examples // 5)
def test_bash_reads_a_word_as_the_bytes_that_it_stands_for(name: bytes) -> None:
    word = shell_word(os.fsdecode(name))
    assert word.isprintable()
    assert subprocess.run(["/bin/bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout == name


@given(st.text() | st.text("a:,1[]- \n²", max_size=12))
@example("localhost:" + "9" * 5000)
@example("9" * 5000)
def test_parsers_of_values_raise_value_errors_of_one_line_on_any_text(text: str) -> None:
    addresses = (ssh_nodes, address, server_address, mail_address)
    for read in (*addresses, cores_per_task, at_least_one, at_least_zero, seconds, one_line, path, log_level):
        try:
            read(text)
        except ValueError as error:
            assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half


@pytest.mark.parametrize("text", ["me", "me@example.org", "o'hara+runs@host", "jürgen@x"])
def test_mails_go_to_one_address(text: str) -> None:
    assert mail_address(text) == text


@pytest.mark.parametrize("text", ["", "@", "a b", "a,b", "a@x;b@x", "A <a@x>", "a@x\nBcc: b@x", "a\0", "a\udcff"])
def test_what_is_no_mail_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it must be one mail address") as error:
        mail_address(text)
    assert str(error.value).isprintable()


def test_mails_go_through_this_machine_unless_the_environment_names_another() -> None:
    assert mail_server_of_environment({}) == Address("localhost", 25)
    assert mail_server_of_environment({"DISBATCH_SMTP": ""}) == Address("localhost", 25)
    assert mail_server_of_environment({"DISBATCH_SMTP": "relay:587"}) == Address("relay", 587)
    assert mail_server_of_environment({"DISBATCH_SMTP": "[::1]:25"}) == Address("::1", 25)


@pytest.mark.parametrize("text", ["relay", ":25", "relay:0", "relay:smtp", "re\nlay:25", "25"])
def test_what_is_no_mail_server_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"DISBATCH_SMTP: .* is no address of a mail server \(write it as") as raised:
        mail_server_of_environment({"DISBATCH_SMTP": text})
    assert str(raised.value).isprintable()
