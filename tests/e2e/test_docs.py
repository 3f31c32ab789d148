"""What the pages for users show works: their commands run, and print what the pages say.

Blocks marked `bash` and `python` are run, those of a page in their order and in one directory; what a block marked
`text` behind one holds is what it prints, with `...` for anything. Blocks marked `sh` need what is not here, and
are not run; nor are those marked `toml`.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Workplace

DOCS = CHECKOUT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#([^)]*))?\)")


def steps(page: str) -> list[tuple[str, str | None]]:
    """Commands of each block that is run, and what it prints where the page says so."""
    found: list[tuple[str, str | None]] = []
    for kind, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        assert kind in {"bash", "python", "text", "sh", "toml"}, f"{page} has a block of unknown kind {kind}"
        if kind == "bash":
            found.append((text, None))
        elif kind == "python":
            python = f"{shlex.quote(sys.executable)} - <<'END OF PROGRAM' 2> /dev/null"
            found.append((f"{python}\n{text}END OF PROGRAM\n", None))
        elif kind == "text":
            assert found, f"{page} begins with the output of nothing"
            found[-1] = (found[-1][0], text)
    return found


def is_shown(output: str, shown: str) -> bool:
    """Whether that output is what a page shows, whose `...` stands for anything."""
    return re.fullmatch(".*?".join(map(re.escape, shown.split("..."))), output, re.DOTALL) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)])
def test_the_commands_of_a_page_do_what_it_says(work: Workplace, tmp_path: Path, page: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "disbatch"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom disbatch.cli import main\nsys.exit(main())\n", "utf-8")
    script.chmod(0o755)
    work.directory = tmp_path / "place"
    work.directory.mkdir()
    mark = f"-- {work.mark} --"
    lines = ["set -e; exec 2>&1", f'PATH={tools}:"$PATH"; export LC_ALL=C']
    blocks = steps(page)
    for commands, _ in blocks:
        lines += [f"echo '{mark}'", commands]
    done = work.run("-c", "\n".join(lines), program=["bash"])
    assert done.returncode == 0, done.stdout
    outputs = done.stdout.split(f"{mark}\n")[1:]
    assert len(outputs) == len(blocks)
    for output, (commands, shown) in zip(outputs, blocks, strict=True):
        assert shown is None or is_shown(output, shown), f"{commands} has printed\n{output}and {page} says\n{shown}"


def test_the_tutorial_shows_what_it_is_for() -> None:
    commands = "".join(text for text, _ in steps("tutorial.md"))
    for part in ("disbatch -s", "-r second_status.txt", "_dbUtil.sh -s"):
        assert part in commands


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["../README.md", *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    for target, heading in LINK.findall((DOCS / page).read_text(encoding="utf-8")):
        path = (DOCS / page).parent / target
        assert path.exists(), f"{page}: {target} is not there"
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), f"{page}: {target} has no heading {heading}"


def test_every_page_is_reached_from_the_readme() -> None:
    unseen, seen = [CHECKOUT / "README.md"], set()
    while unseen:
        page = unseen.pop()
        seen.add(page)
        targets = [(page.parent / target).resolve() for target, _ in LINK.findall(page.read_text(encoding="utf-8"))]
        unseen += [path for path in targets if path.suffix == ".md" and path not in seen]
    assert {DOCS / page for page in PAGES} <= seen
