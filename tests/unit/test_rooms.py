"""The house itself: which file may import what, and that every file has its twin test."""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "disbatch"
TWINS = ROOT / "tests" / "unit"

PURE = {
    "errors.py",
    "records.py",
    "tasks.py",
    "messages.py",
    "taskfile.py",
    "layout.py",
    "statusfile.py",
    "options.py",
    "arguments.py",
    "parser.py",
    "values.py",
    "runfiles.py",
    "credentials.py",
    "handover.py",
    "web/gate.py",
    "web/history.py",
    "web/search.py",
    "web/view.py",
    "kvsstcp/wire.py",
    "kvsstcp/store.py",
    "kvsstcp/auth.py",
    "kvsstcp/rights.py",
    "kvsstcp/envfile.py",
    "kvsstcp/certificate.py",
    "driver/events.py",
    "driver/snapshot.py",
    "driver/fleet.py",
    "driver/membership.py",
    "driver/controller.py",
    "driver/letter.py",
    "managers/base.py",
    "managers/ssh.py",
    "managers/slurm.py",
    "managers/job.py",
    "managers/pbs.py",
    "managers/lsf.py",
    "managers/sge.py",
    "engine/roster.py",
    "engine/environment.py",
    "line.py",
    "snippet.py",
    "watch/state.py",
    "watch/pace.py",
    "watch/notices.py",
    "watch/words.py",
    "progress/line.py",
    "monitor/cells.py",
    "monitor/model.py",
    "monitor/render.py",
    "monitor/status.py",
    "report/causes.py",
    "report/wording.py",
}
"""Files that decide and do nothing: their clock, files, randomness and environment come in as arguments."""

ROLES = ("driver", "contexts", "engine")

HARMLESS = {
    *(
        "__future__",
        "abc",
        "argparse",
        "array",
        "ast",
        "bisect",
        "collections",
        "copy",
        "enum",
        "functools",
        "heapq",
    ),
    *(
        "hmac",
        "itertools",
        "json",
        "math",
        "msgpack",
        "operator",
        "os.path",
        "re",
        "shlex",
        "struct",
        "textwrap",
        "typing",
    ),
    "unicodedata",
}
"""What a pure file may import from elsewhere: what computes with its arguments alone."""

HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)
"""Nodes of the syntax tree that are statements or hold some."""

SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "ssl",
    "subprocess",
    "typing",
}
"""Modules of Python's that take from 2 to 25 ms to be imported."""

PATHS = {"PYTHONPATH": os.pathsep.join(sys.path)}
"""Environment in which a program finds what this one does without `site`, which may import anything itself."""

OUTSIDE = {"open", "print", "input", "breakpoint"}
"""Builtins that reach out of the process; no pure file calls them."""


@cache
def source_files() -> list[str]:
    return sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py"))


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    """Every statement under `node`, however deep; without `for_types` not those that only a type checker sees."""
    unseen = [node]
    while unseen:
        parent = unseen.pop()
        children: Iterable[ast.AST] = ast.iter_child_nodes(parent)
        if isinstance(parent, ast.If) and is_type_checking(parent.test) and not for_types:
            children = parent.orelse
        for child in children:
            # No expression holds a statement: what is left out here hides none.
            if isinstance(child, HOLDERS):
                yield child
                unseen.append(child)


def imported(tree: ast.AST, *, for_types: bool = False) -> set[str]:
    """Modules that code imports, wherever it does; what is imported from a package counts as a module of its own."""
    modules: set[str] = set()
    for node in statements(tree, for_types=for_types):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative imports are not used in this house"
            assert node.module is not None
            modules.update(home_of(node.module, alias.name) for alias in node.names)
    return modules


@cache
def home_of(module: str, name: str) -> str:
    """Module that `from module import name` is about: `module.name` where that is one of ours, else `module`."""
    inner = Path(*module.split("."), name)
    is_module = (ROOT / inner).with_suffix(".py").exists() or (ROOT / inner).is_dir()
    return f"{module}.{name}" if is_module and module.partition(".")[0] == "disbatch" else module


@cache
def file_of(module: str) -> str:
    """File of one of our own modules, relative to the house."""
    path = HOUSE.joinpath(*module.split(".")[1:])
    inside = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return inside.relative_to(HOUSE).as_posix()


@cache
def parsed(file: str) -> ast.Module:
    return ast.parse((HOUSE / file).read_bytes(), file)


@cache
def imports_of(file: str) -> tuple[set[str], set[str]]:
    """Modules that a file of ours imports: when it runs, and with those for types alone."""
    tree = parsed(file)
    return imported(tree), imported(tree, for_types=True)


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "disbatch"


def is_harmless(module: str) -> bool:
    return module in HARMLESS or module.partition(".")[0] in HARMLESS


def test_a_pure_file_imports_nothing_that_does_something() -> None:
    for file, module in [(one, module) for one in PURE for module in imports_of(one)[0]]:
        if is_ours(module):
            home = file_of(module)
            assert home in PURE | {"__init__.py"}, (
                f"disbatch/{file} is pure and must not import {module}, which is not: pass in what it needs of it"
            )
        else:
            assert is_harmless(module), (
                f"disbatch/{file} is pure and must not import {module}: pass in what it needs of it "
                "(a module that only computes with its arguments belongs into HARMLESS of this test)"
            )


def test_a_pure_file_calls_nothing_that_reaches_out() -> None:
    for file, node in [(one, node) for one in PURE for node in ast.walk(parsed(one))]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            assert name not in OUTSIDE, f"disbatch/{file}, line {node.lineno}: a pure file must not call {name}()"


def test_the_package_itself_imports_nothing() -> None:
    modules = imports_of("__init__.py")[0] - {"__future__"}
    assert not modules, f"disbatch/__init__.py is imported with every pure file and must not import {modules}"


def test_no_role_imports_another() -> None:
    files = [file for file in source_files() if file.startswith(ROLES)]
    for file, module in [(one, module) for one in files for module in imports_of(one)[1]]:
        own = file.partition("/")[0]
        role = module.split(".")[1] if is_ours(module) and "." in module else ""
        assert role not in ROLES or role == own, (
            f"disbatch/{file} must not import {module}: the {own} and another role share only what lies above them"
        )


def test_nothing_is_pickled() -> None:
    for file in set(source_files()) - {"kvsstcp/client.py", "kvsstcp/dump.py"}:
        assert "pickle" not in imports_of(file)[1], f"disbatch/{file} must not import pickle: say it in messages"


@pytest.mark.parametrize("role", ["contexts", "engine"])
def test_what_a_run_waits_for_imports_nothing_that_takes_long(role: str) -> None:
    """A context or an engine is to have started its first task in little more time than Python starts in."""
    code = f"import sys, disbatch.{role}.process; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    modules = subprocess.run(command, cwd=ROOT, env=PATHS, check=True, capture_output=True)
    slow = SLOW & set(modules.stdout.decode().split())
    assert not slow, f"{role} would start faster without {slow}: see docs/design.md"


def test_only_the_screen_of_the_monitor_knows_curses() -> None:
    assert {file for file in source_files() if "curses" in imports_of(file)[0]} == {"monitor/screen.py"}


def test_every_file_has_its_room_in_the_design() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = design.partition("## Rooms")[2].partition("\n## ")[0]
    for file in source_files():
        name = file.rpartition("/")[2].removesuffix(".py")
        assert name == "__init__" or re.search(rf"`{name}(?:\.py)?`", rooms), f"docs/design.md gives {file} no room"


def test_the_key_value_store_imports_nothing_of_disbatch() -> None:
    files = [file for file in source_files() if file.startswith("kvsstcp/")]
    for file, module in [(one, module) for one in files for module in imports_of(one)[1]]:
        assert not is_ours(module) or module.startswith("disbatch.kvsstcp"), (
            f"disbatch/{file} must not import {module}: the key-value store is of use without disbatch"
        )


TIMES_OF_DAY = {("time", name) for name in ("time", "time_ns", "ctime", "gmtime", "localtime")} | {
    ("datetime", name) for name in ("now", "utcnow", "today")
}
"""What asks for the time of day, which somebody may set at any moment: module or class, and name."""

SHOWING_TIMES = {
    "driver/beginning.py": "the name of a run",
    "driver/loop.py": "lines of barriers, and the posted state",
    "driver/mail.py": "the date of a mail",
    "driver/process.py": "since when the run goes on, in its posted state",
    "engine/attempts.py": "lines of tasks",
    "engine/ranks.py": "lines of tasks",
    "log.py": "lines of the log",
    "monitor/process.py": "how long ago something was",
    "progress/screen.py": "for how long the run has gone on",
}
"""Files that ask for the time of day, and what for: it is shown to people, and decides nothing."""


def asks_for_time_of_day(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if (owner, node.attr) in TIMES_OF_DAY:
                return True
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names} & {name for _, name in TIMES_OF_DAY}
            if names and node.module in ("time", "email.utils"):
                return True
    return False


def test_the_time_of_day_is_only_shown() -> None:
    asking = {file for file in source_files() if asks_for_time_of_day(parsed(file))}
    assert asking == set(SHOWING_TIMES), (
        "a clock may be set at any moment: what decides goes by time.monotonic() or the loop's now(); "
        "a file that shows the time of day to people belongs into SHOWING_TIMES of this test"
    )


def twin_of(file: str) -> str:
    """Where a file is tested; what makes that too long has a file beside it, `test_controller_losses.py` for one."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/test_{name}" if folder else f"test_{name}"


WITHOUT_TWIN = {file for file in source_files() if file.endswith(("__init__.py", "__main__.py"))}
"""Doors: they hold nothing but what end-to-end tests go through."""


def test_every_source_file_has_its_twin_test() -> None:
    for file in set(source_files()) - WITHOUT_TWIN:
        twin = TWINS / twin_of(file)
        assert twin.exists(), f"disbatch/{file} has no twin test: write {twin.relative_to(ROOT)}"
        tests = re.search(r"^(def|class) test", twin.read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)
        assert tests, f"{twin.relative_to(ROOT)} tests nothing"


def test_the_lists_of_this_test_are_up_to_date() -> None:
    missing = PURE - set(source_files())
    assert not missing, f"these files are in PURE of this test and not in the house: {sorted(missing)}"
    for role in ROLES:
        assert (HOUSE / role).is_dir(), f"{role} is in ROLES of this test and no folder of the house"
    for module in HARMLESS - {"msgpack"}:
        assert module.partition(".")[0] in sys.stdlib_module_names, f"{module} is no module of Python's"
    for name in OUTSIDE:
        assert hasattr(builtins, name)


# That this test itself sees what it is to see.


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import os.path, socket", {"os.path", "socket"}),
        ("from os import path", {"os"}),
        ("from disbatch import __version__, options", {"disbatch", "disbatch.options"}),
        ("from disbatch.engine import process as engine", {"disbatch.engine.process"}),
        ("from disbatch.tasks import Task", {"disbatch.tasks"}),
        ("def late():\n    import time", {"time"}),
        ("if TYPE_CHECKING:\n    import time\nelse:\n    import io", {"io"}),
        ("if typing.TYPE_CHECKING:\n    import time", set()),
        ("try:\n    import time\nexcept ImportError:\n    import random", {"time", "random"}),
    ],
)
def test_imports_are_found_wherever_they_stand(code: str, modules: set[str]) -> None:
    assert imported(ast.parse(code)) == modules


def test_imports_for_types_are_found_where_they_count() -> None:
    assert imported(ast.parse("if TYPE_CHECKING:\n    import time"), for_types=True) == {"time"}


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("now = time.time()", True),
        ("moment = datetime.datetime.now()", True),
        ("clock = time.time", True),
        ("from time import time", True),
        ("now = time.monotonic()", False),
        ("loop.now()", False),
    ],
)
def test_who_asks_for_the_time_of_day_is_noticed(code: str, *, asks: bool) -> None:
    assert asks_for_time_of_day(ast.parse(code)) is asks


@pytest.mark.parametrize("module", ["os", "sys", "time", "collections.abc", "os.path", "random", "datetime", "pickle"])
def test_only_what_computes_is_harmless(module: str) -> None:
    assert is_harmless(module) is (module in {"collections.abc", "os.path"})
