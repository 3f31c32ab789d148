"""Each example does what the page about the examples says of it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

EXAMPLES = CHECKOUT / "exampleTaskFiles"


def pi(work: Workplace) -> None:
    found = re.fullmatch(r"(3\.\d{4}) from 2400000 points\n", work.text("pi.txt"))
    assert found is not None
    assert abs(float(found[1]) - 3.1416) < 0.02


def collatz(work: Workplace) -> None:
    assert work.text("longest_chain.txt") == "77031 takes 350 steps\n"


def fridays(work: Workplace) -> None:
    counts = {year: work.text(f"fridays_{year:06}.txt") for year in range(1970, 2030, 10)}
    assert counts[1970] == "17\n"
    assert all(16 <= int(count) <= 18 for count in counts.values())


def prime_gaps(work: Workplace) -> None:
    gaps = dict(line.split() for line in work.text("prime_gaps.txt").splitlines())
    assert sorted(map(int, gaps)) == list(range(2, 22, 2))
    assert gaps["2"] == "2994"  # pairs of twin primes below 300,000
    assert not list(work.directory.glob("*disBatch*.0"))


RESULTS = {"pi": pi, "collatz": collatz, "fridays": fridays, "prime_gaps": prime_gaps}


def test_none_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.tasks")} == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_an_example(work: Workplace, name: str) -> None:
    if shutil.which("awk") is None:
        pytest.skip("the examples need awk")
    done = work.run(
        "-e", "-s", "localhost:2", str(EXAMPLES / f"{name}.tasks"), env={"TMPDIR": str(work.directory)}, timeout=120.0
    )
    assert done.returncode == 0, done.stderr
    assert {line.return_code for line in work.status(f"{name}.tasks")} == {0}
    RESULTS[name](work)
