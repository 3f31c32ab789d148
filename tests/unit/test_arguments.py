from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.arguments import Role, arguments_for, declarations, option, parse
from disbatch.errors import UsageError
from disbatch.parser import parser
from disbatch.records import record

if TYPE_CHECKING:
    from collections.abc import Sequence

FOOD, SERVICE = "what to eat", "how it is served"


def at_most_nine(text: str) -> int:
    if int(text) > 9:
        raise ValueError(f"{text} is more than anybody eats")
    return int(text)


@record
class Order:
    """What a guest may order."""

    dish: str | None = option(metavar="dish", group=FOOD, help="a dish of the day", path=True)
    warm: bool = option("-w", "--warm", group=SERVICE, default=False, help="warm it up")
    portions: int = option(
        "-n", "--portions", group=FOOD, metavar="N", convert=at_most_nine, default=1, help="how many"
    )
    sauces: tuple[str, ...] = option("-s", "--sauce", group=FOOD, metavar="NAME", many=True, help="with this")
    size: str = option(
        "--size", group=SERVICE, choices=("small", "large"), convert=str.lower, default="small", help="S"
    )
    wine: str | None = option("--wine", group=FOOD, metavar="NAME", alone="house", help="and wine")
    guests: tuple[str, ...] = option("--for", group=SERVICE, metavar=("HOST", "GUEST"), words=2, help="for whom")
    table: str = option("--table", group=SERVICE, metavar="N", default="", hidden=True, help="where it goes")


ORDER = Role(Order, "Order a dish.", (FOOD, SERVICE), epilog="Enjoy.", version="1.0")


def ordered(*arguments: str) -> Order:
    order: Order = parse(ORDER, arguments, "order")
    return order


def test_each_kind_of_option_is_read() -> None:
    assert ordered() == Order()
    everything = (
        "-w",
        "-n",
        "3",
        "-s",
        "hot",
        "--sauce=mild",
        "--size",
        "LARGE",
        "--table",
        "4",
        "soup",
        "--wine=red",
        "--for",
        "Ann",
        "Bob",
    )
    assert ordered(*everything) == Order("soup", True, 3, ("hot", "mild"), "large", "red", ("Ann", "Bob"), "4")


def test_an_option_without_its_value_means_what_it_says_alone() -> None:
    assert ordered("--wine").wine == "house"
    assert ordered("--wine", "-w").wine == "house"
    assert ordered().wine is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-n", "10"], "argument -n/--portions: 10 is more than anybody eats"),
        (["-n"], "argument -n/--portions: expected one argument"),
        (["--for", "Ann"], "argument --for: expected 2 arguments"),
        (["soup", "--portion", "1"], "unrecognized arguments: --portion 1"),
        (["soup", "fish"], "unrecognized arguments: fish"),
        (["soup", "-\n\x1b"], r"unrecognized arguments: -\n\x1b"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_help_is(arguments: Sequence[str], complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        ordered(*arguments)
    assert (error.value.message, error.value.hint) == (complaint, "see order --help")


def test_help_stands_under_its_headings_in_their_order_by_long_names() -> None:
    shown = parser(ORDER, "order").format_help()
    names = (
        *("usage: order [option ...]", "Order a dish."),
        *(f"{FOOD}:", "  dish", "--portions N", "--sauce NAME", "--wine"),
        *(f"{SERVICE}:", "-h, --help", "--version", "--size", "-w, --warm", "Enjoy."),
    )
    places = [shown.index(name) for name in names]
    assert places == sorted(places)
    assert "--table" not in shown


def test_declarations_come_in_the_order_of_the_help() -> None:
    names = [name for name, _ in declarations(ORDER)]
    assert names == ["dish", "portions", "sauces", "wine", "guests", "size", "table", "warm"]


def test_what_is_hidden_is_still_told_of_in_a_reference() -> None:
    table = dict(declarations(ORDER))["table"]
    assert (table.hidden, table.help) == (True, "where it goes")


def test_a_role_without_a_version_has_no_option_for_it() -> None:
    plain = Role(Order, "Order.", (FOOD, SERVICE))
    with pytest.raises(UsageError, match="unrecognized arguments: --version"):
        parse(plain, ["--version"], "order")


def test_a_shell_completes_names_of_files_where_they_are_meant() -> None:
    def files(**_about: object) -> list[str]:
        return ["soup"]

    actions = parser(ORDER, "order", complete_path=files)._actions
    assert [action.dest for action in actions if getattr(action, "completer", None) is files] == ["dish"]


names = st.text("abc é/", min_size=1)
words = st.text(st.characters(exclude_characters="\0"), min_size=1).filter("--".__ne__)


@given(
    st.builds(
        Order,
        warm=st.booleans(),
        portions=st.integers(0, 9),
        sauces=st.lists(words, max_size=3).map(tuple),
        size=st.sampled_from(["small", "large"]),
        wine=st.none() | st.just("house") | words,
        guests=st.just(()) | st.tuples(names, names),
        table=words,
    )
)
def test_values_are_read_back_as_they_were(order: Order) -> None:
    assert ordered(*arguments_for(order)) == order


def test_what_is_written_as_usual_is_read_without_argparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("disbatch.parser.parse")
    order = ordered("-w", "-n", "3", "-s", "hot", "--sauce=", "--size", "LARGE", "--wine=red", "soup")
    assert order == Order("soup", True, 3, ("hot", ""), "large", "red")


def test_only_what_is_named_and_no_default_becomes_an_argument() -> None:
    order = Order(warm=True, portions=1, wine="house", table="--size")
    assert arguments_for(order) == ["--warm", "--wine", "--table=--size"]
    assert arguments_for(order, ["portions", "table"]) == ["--table=--size"]
