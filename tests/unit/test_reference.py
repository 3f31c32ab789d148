"""The pages of the reference name all that is there: a new option, variable, file or directive needs its line."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from disbatch import taskfile
from disbatch.arguments import declared_by
from disbatch.engine.environment import TaskEnvironment
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.endpoint import HOST_VARIABLE, PORT_VARIABLE
from disbatch.messages import EngineAdmitted, Lease
from disbatch.options import ContextRoleOptions, DriverOptions, FailuresOptions, ObserverRoleOptions
from disbatch.runfiles import RunFiles, beginning_name, set_aside_name
from disbatch.statusfile import HEADER
from disbatch.tasks import Task
from disbatch.values import CONTEXT_VARIABLE, SSH_NODES_VARIABLE

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGE = REFERENCE / "options.md"


def text_of(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def made() -> str:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make-reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.page())


def test_the_page_of_options_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == made(), f"{PAGE.relative_to(ROOT)} is stale: run `make reference`"


def test_every_option_that_is_for_users_has_its_line() -> None:
    driver, context, observer, failures = made().split("\n## ")[1:]
    roles = (
        (driver, DriverOptions),
        (context, ContextRoleOptions),
        (observer, ObserverRoleOptions),
        (failures, FailuresOptions),
    )
    for page, role in roles:
        for declared in declared_by(role).values():
            for flag in declared.flags:
                assert bool(re.search(rf"`{flag}[ `]", page)) is bool(declared.help), flag


def test_every_directive_has_its_line() -> None:
    page = text_of("directives.md").replace("\\|", "|")
    for form in taskfile._FORMS.values():
        assert f"`{form}`" in page


def test_every_column_of_the_status_file_has_its_line() -> None:
    page = text_of("status-file.md")
    for column in HEADER.decode().rstrip("\n").split("\t"):
        assert f"`{column}`" in page


def test_every_variable_has_its_line() -> None:
    settings = EngineAdmitted(
        directory=b"/", job="job", task_source="Tasks", cylinders=1, cores_per_cylinder=1,
        per_engine_tasks=(), environment_resources=(), lease=Lease(1.0, 2.0, 3.0),
    )  # fmt: skip
    of_task = TaskEnvironment({}, settings, 0).of_task(Task(0, 1, -1, b"true"), 0)
    page = text_of("environment.md")
    for_disbatch = (SSH_NODES_VARIABLE, CONTEXT_VARIABLE, SECRET_VARIABLE, HOST_VARIABLE, PORT_VARIABLE)
    for variable in (*map(bytes.decode, of_task), *for_disbatch):
        assert f"`{variable}`" in page


def test_every_file_of_a_run_has_its_line() -> None:
    files = RunFiles("<unique id>")
    properties = [name for name, value in vars(RunFiles).items() if isinstance(value, property)]
    names = {
        value for value in (getattr(files, name) for name in properties) if value.startswith(f"{files.unique_id}_")
    }
    names |= {files.context_log("<label>"), files.engine_output("<label>", "<host>"), set_aside_name(files.status, 0)}
    names |= {files.engine_log("<label>", "<host>", 0), files.context_launch_log(0)}
    page = text_of("files.md")
    shown = page.replace("<rank>", "0").replace("<pid>", "0").replace(".<n>", ".0")
    for name in names:
        assert f"`{name}`" in shown, name
    assert f"`…{beginning_name('_status.txt')}`" in page
