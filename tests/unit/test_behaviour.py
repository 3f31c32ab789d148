"""The table of promises, `tests/behaviour.md`: each of them names tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = TESTS / "behaviour.md"

SECTIONS = range(1, 11)
"""Numbers of the sections of the specification."""

HEADING = re.compile(r"## (\d+)\. .+")
NAMES = re.compile(r"`[^`]+`(?:, `[^`]+`)*")
NEXT_STATEMENT = re.compile(r"\n(?=[^\s#)])")
ASSERTING = re.compile(r"(?:assert|raises|fail)(?:_|\Z)")


def rows_of(table: str) -> dict[int, list[tuple[str, str]]]:
    """Promise and tests of each row, by section; fails at a line in a section that is no row."""
    rows: dict[int, list[tuple[str, str]]] = {}
    section = 0
    for number, line in enumerate(table.splitlines(), 1):
        if heading := HEADING.fullmatch(line):
            section = int(heading[1])
            assert section not in rows, f"line {number}: section {section} is there twice; put the two together"
            rows[section] = []
        elif section and line and line not in ("| promise | tests |", "|---|---|"):
            cells = [cell.strip() for cell in line.split("|")]
            assert len(cells) == 4, f"line {number}: write it as | promise | `file::test`, `file::test` |"
            rows[section].append((cells[1], cells[2]))
    return rows


def names_in(promise: str, cell: str) -> list[str]:
    assert NAMES.fullmatch(cell), (
        f"{promise!r} names no test: name one as `e2e/test_tasks.py::test_repeat`, or write it"
    )
    return cell.strip("`").split("`, `")


@cache
def text_of(file: str) -> str:
    return f"\n{(TESTS / file).read_text(encoding='utf-8')}"


def function(text: str, name: str) -> ast.FunctionDef | None:
    """Find a function of a module by its name; the rest of the module is not parsed where that can be spared."""
    begin = text.find(f"\ndef {name}(") + 1
    if not begin:
        return None
    end = NEXT_STATEMENT.search(text, begin)
    try:
        module = ast.parse(text[begin : end.start() if end else None])
    except SyntaxError:  # a text in it has lines that are not indented
        module = ast.parse(text)
    return next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)


def asserts(test: ast.FunctionDef) -> bool:
    """Whether a test can fail by something that it says itself, or by a function that is called for it."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if ASSERTING.match(name):
                return True
    return False


@cache
def problem_with(name: str) -> str:
    """What is wrong with the name of a test and what to do about it; empty if nothing is."""
    file, _, test = name.partition("::")
    if not test.startswith("test_"):
        return f"{name} is no name of a test: write it as file::test"
    if not (TESTS / file).is_file():
        return f"there is no tests/{file}: name the file in which {test} is now"
    found = function(text_of(file), test)
    if found is None:
        return f"tests/{file} has no {test}: name what it is called now, or another"
    return "" if asserts(found) else f"{name} asserts nothing: name a test that does"


def test_every_promise_names_tests_that_are_there() -> None:
    for rows in rows_of(TABLE.read_text(encoding="utf-8")).values():
        for promise, cell in rows:
            for name in names_in(promise, cell):
                assert not problem_with(name), f"tests/behaviour.md, {promise!r}: {problem_with(name)}"


def test_every_section_has_promises() -> None:
    rows = rows_of(TABLE.read_text(encoding="utf-8"))
    assert list(rows) == list(SECTIONS), "the sections of tests/behaviour.md are those of the specification, in order"
    for section, promises in rows.items():
        assert promises, f"section {section} of tests/behaviour.md has no promise: add those of the specification"


def test_no_promise_is_there_twice_in_its_section() -> None:
    for section, rows in rows_of(TABLE.read_text(encoding="utf-8")).items():
        promises = [promise for promise, _ in rows]
        twice = {promise for promise in promises if promises.count(promise) > 1}
        assert not twice, f"section {section} has {twice} twice: put their tests into one row"


# That this test itself sees what it is to see.


@pytest.mark.parametrize("row", ["promise", "| promise |", "| a | b | `c` |"])
def test_what_is_no_row_is_noticed(row: str) -> None:
    with pytest.raises(AssertionError, match="line 2: write it as"):
        rows_of(f"## 1. One\n{row}\n")


def test_a_section_that_is_there_twice_is_noticed() -> None:
    with pytest.raises(AssertionError, match="section 1 is there twice"):
        rows_of("## 1. One\n## 1. Two\n")


@pytest.mark.parametrize("cell", ["", "none", "``", "`a.py::test_a` `a.py::test_b`", "a.py::test_a"])
def test_a_promise_without_a_test_is_noticed(cell: str) -> None:
    with pytest.raises(AssertionError, match="'a promise' names no test"):
        names_in("a promise", cell)


def test_all_tests_of_a_promise_are_looked_at() -> None:
    assert names_in("a promise", "`a.py::test_a`, `b.py::test_b`") == ["a.py::test_a", "b.py::test_b"]


MODULE = '''
def test_one(work: Workplace) -> None:
    assert work

# a comment
    assert work.done


@mark
def test_two(
    work: Workplace,
) -> None:
    """test_three"""
    work.run()


def test_three() -> None:
    with pytest.raises(ValueError):
        int("")


def test_four() -> None:
    assert_one_clear_line("""
not indented
""")
'''


@pytest.mark.parametrize(("name", "does"), [("one", True), ("two", False), ("three", True), ("four", True)])
def test_a_test_is_found_and_what_it_asserts(name: str, *, does: bool) -> None:
    found = function(f"\n{MODULE}", f"test_{name}")
    assert found is not None
    assert found.name == f"test_{name}"
    assert asserts(found) is does


@pytest.mark.parametrize("name", ["test_on", "test_five", "comment"])
def test_a_test_that_is_not_there_is_not_found(name: str) -> None:
    assert function(f"\n{MODULE}", name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("unit/test_behaviour.py", "is no name of a test"),
        ("unit/test_behaviour.py::problem_with", "is no name of a test"),
        ("unit/test_behaviours.py::test_x", "there is no tests/unit/test_behaviours.py"),
        ("unit/test_behaviour.py::test_x", "tests/unit/test_behaviour.py has no test_x"),
        ("unit/test_behaviour.py::test_every_section_has_promises", ""),
    ],
)
def test_what_is_wrong_with_a_name_is_told(name: str, problem: str) -> None:
    assert problem in problem_with(name)
    assert bool(problem) is bool(problem_with(name))
