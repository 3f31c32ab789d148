"""Many seeds: `python -m tests.chaos --seeds 200`, as root. The Makefile calls it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from tests.chaos import harness
from tests.chaos.schedule import FEATURES, make_schedule
from tests.hosts import why_no_hosts


def main() -> int:
    """Perform seeds; 1 if one of them has shown something that must not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="disbatch under random failures.")
    parser.add_argument("seed", nargs="*", type=int, help="perform these and no others")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="perform N seeds (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="so many side by side")
    parser.add_argument("--features", default=",".join(harness.READY), help=f"of {','.join(FEATURES)}")
    parser.add_argument("--keep", action="store_true", help="keep the directories of seeds that passed, too")
    parser.add_argument("--show", action="store_true", help="perform nothing, print the schedules")
    parser.add_argument("--judge", metavar="DIRECTORY", type=Path, help="judge again what is in this directory")
    asked = parser.parse_args()
    if asked.judge:
        print("\n".join(harness.judge(asked.judge)))
        return 0
    seeds = asked.seed or range(asked.first, asked.first + asked.seeds)
    features = [name for name in FEATURES if name in asked.features.split(",")]
    if asked.show:
        print("\n".join(str(make_schedule(seed, features)) for seed in seeds))
        return 0
    if reason := why_no_hosts():
        print(f"chaos: {reason}", file=sys.stderr)
        return 1
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    failed = []
    with ThreadPoolExecutor(asked.at_once) as executor:
        tasks = {executor.submit(partial(timed, seed, place, features)): seed for seed in seeds}
        for task in as_completed(tasks):
            seed, (wrongs, seconds) = tasks[task], task.result()
            directory = place / str(seed)
            if wrongs:
                failed.append(seed)
                print(f"seed {seed} FAILED in {seconds:.1f} s, see {directory}")
                print("\n".join(f"    {wrong[:500]}" for wrong in wrongs[:5]), flush=True)
            else:
                print(f"seed {seed} passed in {seconds:.1f} s", flush=True)
                if not asked.keep:
                    shutil.rmtree(directory)
    if not (failed or asked.keep):
        place.rmdir()
    print(f"{len(seeds) - len(failed)} seeds passed, {len(failed)} failed: {' '.join(map(str, sorted(failed)))}")
    return 1 if failed else 0


def timed(seed: int, place: Path, features: list[str]) -> tuple[list[str], float]:
    """What was wrong with a seed, and the seconds it took."""
    begun = time.monotonic()
    return harness.perform(seed, place / str(seed), features), time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
