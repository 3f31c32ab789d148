"""What a user gets from an index works: wheel and source distribution are complete, and install into nothing.

The packages are built from this checkout, and installed by pip as a user would, with what they depend on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).parents[2]

INSTALLING_SECONDS = 300.0
RUNNING_SECONDS = 60.0

DOORS = [("disbatch",), ("disBatch",), ("python", "-m", "disbatch")]


def call(command: Sequence[str | Path], *, cwd: Path, timeout: float) -> str:
    """Run a program that must succeed, as someone who knows nothing of this checkout; return its standard output."""
    foreign = ("PYTHON", "DISBATCH_", "SLURM_", "KVSSTCP_", "COV_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distribution, and with the wheel that is built from it, not from the checkout."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    call([*build, "--outdir", str(directory), str(CHECKOUT)], cwd=directory, timeout=INSTALLING_SECONDS)
    return directory


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(request: pytest.FixtureRequest, distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment into which one of the two was installed, and nothing else."""
    (package,) = distributions.glob(request.param)
    directory = tmp_path_factory.mktemp("environment")
    python = directory / "bin" / "python"
    call([sys.executable, "-m", "venv", "--without-pip", directory], cwd=directory, timeout=INSTALLING_SECONDS)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    call([*pip, "install", "--quiet", str(package)], cwd=directory, timeout=INSTALLING_SECONDS)
    return python.parent


@pytest.mark.parametrize("door", DOORS, ids=" ".join)
def test_every_door_tells_the_version(
    installed: Path, distributions: Path, tmp_path: Path, door: Sequence[str]
) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    version = sdist.name.removeprefix("disbatch-").removesuffix(".tar.gz")
    program, *arguments = door
    output = call([installed / program, *arguments, "--version"], cwd=tmp_path, timeout=RUNNING_SECONDS)
    assert version in output.split()


def test_tasks_run(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("echo one > first\nexit 3\n", encoding="ascii")
    call([installed / "disbatch", "-s", "localhost:2", "tasks"], cwd=tmp_path, timeout=RUNNING_SECONDS)
    assert (tmp_path / "first").read_text(encoding="ascii") == "one\n"
    (status_file,) = tmp_path.glob("tasks_disBatch_*_status.txt")
    records = [line.split("\t", 14) for line in status_file.read_text(encoding="utf-8").splitlines()]
    briefs = sorted((record[1], record[6], record[14]) for record in records)  # task id, return code, command
    assert briefs == [("0", "0", "echo one > first"), ("1", "3", "exit 3")]


def test_the_web_page_is_in_the_package(installed: Path, tmp_path: Path) -> None:
    code = "import os, disbatch.web; print(*sorted(os.listdir(os.path.join(*disbatch.web.__path__, 'page'))))"
    output = call([installed / "python", "-c", code], cwd=tmp_path, timeout=RUNNING_SECONDS)
    assert output.split() == ["icon.svg", "index.html", "page.css", "page.js"]
