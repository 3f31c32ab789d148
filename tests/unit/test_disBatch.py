"""`disBatch`, with this test in the place of the driver: it takes what is submitted, and says how it has ended."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from disbatch import disBatch
from disbatch.disBatch import DisBatcher, DriverEndedError
from disbatch.errors import DisbatchError
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.thread import KVSServerThread
from disbatch.kvsstcp.wire import JSON
from disbatch.messages import STATE_KEY
from disbatch.options import RESUME_ADVICE, RETRY_ADVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from disbatch.disBatch import Report

SIGN_IN = ("task source name", "task source done task", "task source result key", "task source task key")


class FakeDriver:
    """What a driver is to the class, and the driver's side of the store."""

    made: FakeDriver

    def __init__(self, arguments: Sequence[str], secret: str) -> None:
        type(self).made = self
        self.arguments = list(arguments)
        self.is_gone = False
        self.waited = self.killed = False
        self.store = KVSClient(arguments[-1], secret=secret)

    def sign_in(self) -> None:
        self.name, self.sentinel, self.result_key, self.task_key = (self.get(key) for key in SIGN_IN)

    def get(self, key: str) -> str:
        return cast("bytes", self.store.get(key, False)).decode()

    def ends(self, *ids: int) -> None:
        """Say that these tasks have ended."""
        for task_id in ids:
            self.store.put(f"{self.result_key} {task_id}", json.dumps({"TaskId": task_id}).encode(), b"JSON")
            self.store.put(f"{self.result_key} done tasks", f"{task_id}", False)

    def submitted(self) -> list[str]:
        """All that was submitted since the last look."""
        values = []
        while True:
            try:
                values.append(cast("bytes", self.store.get(self.task_key, False, 0)).decode())
            except TimeoutError:
                return values

    def has_ended(self, _patience: float) -> bool:
        return self.is_gone

    def wait(self) -> None:
        self.waited = True

    def end(self) -> None:
        self.killed = not self.waited
        self.store.close()

    def failure(self) -> DriverEndedError:
        return DriverEndedError("the driver has ended with 1: it is sorry")


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[DisBatcher]:
    monkeypatch.setattr(disBatch, "_Driver", FakeDriver)
    monkeypatch.setattr(disBatch, "LOOK_AFTER", 0.01)
    made = DisBatcher("mine", args=["-s", "localhost:2"])
    FakeDriver.made.sign_in()
    yield made
    made.kill()


@pytest.fixture
def driver(batch: DisBatcher) -> FakeDriver:  # noqa: ARG001 - it makes one
    return FakeDriver.made


def test_a_driver_gets_the_options_and_what_it_needs_to_find_the_tasks(batch: DisBatcher, driver: FakeDriver) -> None:
    assert driver.arguments[:-1] == ["-s", "localhost:2", "--taskserver"]
    assert driver.name == "mine"
    batch.submit("echo a")
    assert driver.get(driver.task_key) == "echo a"


def test_ids_are_those_of_the_tasks_that_a_submission_makes(batch: DisBatcher) -> None:
    assert batch.submit("a") == [0]
    assert batch.submit("b\nc\n# nothing") == [1, 2]
    assert batch.submit("#DISBATCH REPEAT 2500 d") == list(range(3, 2503))
    assert batch.submit("#DISBATCH BARRIER") == []
    assert batch.submit("e") == [2504]


def test_reports_come_in_the_order_in_which_tasks_end_each_once(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a\nb\nc")
    driver.ends(2, 0, 1)
    assert [batch.wait_one_task()["TaskId"] for _ in range(3)] == [2, 0, 1]


def test_tasks_are_waited_for_by_id(batch: DisBatcher, driver: FakeDriver) -> None:
    ids = batch.submit("a\nb\nc")
    driver.ends(2, 0)
    assert batch.syncTasks([0, 2]) == {0: {"TaskId": 0}, 2: {"TaskId": 2}}
    driver.ends(1)
    assert list(batch.syncTasks(ids)) == [0, 1, 2]
    assert list(batch.syncTasks([1])) == [1], "as often as one likes"


def test_what_was_waited_for_by_id_is_not_given_again(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a\nb\nc")
    driver.ends(0, 1)
    batch.syncTasks([1])
    driver.ends(2)
    assert [report["TaskId"] for report in batch.results()] == [0, 2]


@pytest.mark.parametrize("wrong", [7, -1, 2, "0"])
def test_an_id_that_was_never_given_is_not_waited_for(batch: DisBatcher, wrong: int) -> None:
    batch.submit("a\nb\n#DISBATCH BARRIER")
    with pytest.raises(ValueError, match=f"{wrong!r} is the id of no task that submit"):
        batch.syncTasks([0, wrong])


def test_results_end_when_nothing_is_under_way(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a\nb")
    results = batch.results()
    driver.ends(1)
    assert next(results)["TaskId"] == 1
    batch.submit("c")
    driver.ends(0, 2)
    assert [report["TaskId"] for report in results] == [0, 2]


def ids(reports: Iterable[Report]) -> list[int]:
    return [report["TaskId"] for report in reports]


def test_a_map_gives_what_comes_of_its_lines_and_nothing_else(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a\nb")
    driver.ends(1)
    first, second = batch.map(["c\nd"]), batch.map(["#DISBATCH REPEAT 2 e", "# nothing"])
    driver.ends(2, 3, 0)
    assert next(first)["TaskId"] == 2
    driver.ends(5, 4)
    assert ids(second) == [5, 4]
    assert ids(first) == [3]
    assert ids(batch.results()) == [1, 0]


def test_reports_of_a_map_are_for_nobody_else(batch: DisBatcher, driver: FakeDriver) -> None:
    reports = batch.map(["a\nb"])
    driver.ends(0)
    next(reports)
    with pytest.raises(DisbatchError, match="no task is under way"):
        batch.wait_one_task()
    for task_id in (0, 1):
        with pytest.raises(ValueError, match=f"{task_id} is the id of no task that submit"):
            batch.syncTasks([task_id])


def test_a_map_submits_no_more_than_its_window(
    batch: DisBatcher, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, ended = count(), count()

    def end_the_next_when_waited_for(patience: float) -> bool:
        if patience:
            driver.ends(next(ended))
            driver.store.confirm()
        return False

    monkeypatch.setattr(driver, "has_ended", end_the_next_when_waited_for)
    reports = batch.map((f"echo {number}" for number in taken), window=3)
    assert driver.submitted() == []
    assert [next(reports)["TaskId"] for _ in range(10)] == [*range(10)]
    assert driver.submitted() == [f"echo {number}" for number in range(12)]


def test_a_map_gives_what_has_come_before_it_takes_another_line(batch: DisBatcher, driver: FakeDriver) -> None:
    given: list[int] = []

    def lines() -> Iterator[str]:
        for number in range(3):
            yield f"echo {number}"
            driver.ends(number)
            driver.store.confirm()
            yield "# nothing"
            assert given == [*range(number + 1)]

    given.extend(report["TaskId"] for report in batch.map(lines()))
    assert given == [0, 1, 2]


def test_a_map_that_is_left_early_is_waited_for_at_the_end(batch: DisBatcher, driver: FakeDriver) -> None:
    reports = batch.map(["a\nb"])
    driver.ends(0)
    next(reports)
    del reports
    driver.ends(1)
    batch.done()
    assert driver.waited


def test_a_window_has_room_for_a_task(batch: DisBatcher) -> None:
    with pytest.raises(ValueError, match="window is a number of tasks from 1, not 0"):
        next(batch.map(["a"], window=0))


def test_nothing_is_waited_for_that_is_not_under_way(batch: DisBatcher) -> None:
    with pytest.raises(DisbatchError, match="no task is under way"):
        batch.wait_one_task()
    assert list(batch.results()) == list(batch.map([])) == []


def test_done_waits_for_everything(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a")
    driver.ends(0)
    batch.done()
    batch.done()
    assert driver.waited
    assert batch.wait_one_task() == {"TaskId": 0}
    with pytest.raises(DisbatchError, match="nothing can be submitted"):
        batch.submit("b")


def test_a_block_that_raises_kills_the_driver(batch: DisBatcher, driver: FakeDriver) -> None:
    with pytest.raises(KeyError), batch:
        raise KeyError
    assert driver.killed
    assert not driver.waited


def test_a_block_that_ends_waits_for_the_driver(batch: DisBatcher, driver: FakeDriver) -> None:
    with batch:
        pass
    assert driver.waited


def test_a_driver_that_dies_raises_where_it_is_waited_for(batch: DisBatcher, driver: FakeDriver) -> None:
    batch.submit("a\nb")
    driver.ends(0)
    driver.is_gone = True
    assert batch.wait_one_task() == {"TaskId": 0}, "what it said before is heard"
    with pytest.raises(DriverEndedError, match="ended with 1: it is sorry"):
        batch.wait_one_task()


def test_a_map_notices_a_driver_that_dies_though_it_has_room_for_more(batch: DisBatcher, driver: FakeDriver) -> None:
    def lines() -> Iterator[str]:
        yield "a"
        yield "b"
        driver.ends(0)
        driver.is_gone = True
        while True:
            yield "# nothing"

    reports = batch.map(lines())
    assert next(reports) == {"TaskId": 0}, "what it said before is heard"
    with pytest.raises(DriverEndedError, match="ended with 1: it is sorry"):
        next(reports)


def test_options_are_a_list() -> None:
    with pytest.raises(TypeError, match=r"args is a list of options, .* and not the text '-s localhost:2'"):
        DisBatcher(args="-s localhost:2")


@contextmanager
def nothing_left_open() -> Iterator[None]:
    before = threading.active_count(), set(os.listdir("/proc/self/fd"))
    yield
    assert (threading.active_count(), set(os.listdir("/proc/self/fd"))) == before


class Failing(FakeDriver):
    """A driver that fails at its end."""

    def wait(self) -> None:
        raise self.failure()


class NotThere(FakeDriver):
    """A driver that cannot be started."""

    def __init__(self, arguments: Sequence[str], secret: str) -> None:
        super().__init__(arguments, secret)
        self.end()
        raise PermissionError


@pytest.mark.parametrize("kind", [Failing, NotThere])
def test_a_driver_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, kind: type[FakeDriver]) -> None:
    monkeypatch.setattr(disBatch, "_Driver", kind)
    with nothing_left_open(), pytest.raises((DriverEndedError, PermissionError)), DisBatcher():
        pass


def test_a_wait_at_the_end_that_is_interrupted_kills_the_driver(
    monkeypatch: pytest.MonkeyPatch, batch: DisBatcher, driver: FakeDriver
) -> None:
    def interrupted(_patience: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "has_ended", interrupted)
    batch.submit("a")
    with pytest.raises(KeyboardInterrupt):
        batch.done()
    assert driver.killed


def test_what_a_driver_advises_is_passed_on_if_it_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "".join(f"disbatch: {kind}disbatch --taskserver gone:1 -r s\n" for kind in (RETRY_ADVICE, RESUME_ADVICE))
    said = f"disbatch: 3 tasks finished\n{advice}"
    code = f"import sys; sys.stderr.write({said!r}); sys.exit(1)"
    monkeypatch.setattr(disBatch, "disbatch_command", lambda: (sys.executable, "-c", code))
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(DriverEndedError) as error, DisBatcher():
        pass
    assert str(error.value) == "the driver has ended with 1: 3 tasks finished"
    assert terminal.getvalue() == "disbatch: 3 tasks finished\n"


def test_a_driver_behind_another_store_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_left_open(), KVSServerThread() as server:
        batch, driver = behind(server, monkeypatch)
        batch.submit("a")
        driver.ends(0)
        batch.done()
        assert driver.submitted() == ["a", driver.sentinel]
        driver.end()


def behind(server: KVSServerThread, monkeypatch: pytest.MonkeyPatch) -> tuple[DisBatcher, FakeDriver]:
    """A batch, and the driver that signs it in, behind a store that runs already."""
    assert server.secret is not None
    monkeypatch.setattr(disBatch, "LOOK_AFTER", 0.01)
    monkeypatch.setenv("KVSSTCP_SECRET", server.secret.decode())
    where = f"{server.cinfo[0]}:{server.cinfo[1]}"
    batch, driver = DisBatcher("mine", kvsserver=where), FakeDriver([where], server.secret.decode())
    driver.sign_in()
    return batch, driver


def post(driver: FakeDriver, phase: str) -> None:
    """Say what state the run is in, in the place of what was said before."""
    with suppress(TimeoutError):
        driver.store.get(STATE_KEY, False, 0)
    driver.store.put(STATE_KEY, json.dumps({"phase": phase, "currentReturnCode": 143}), JSON)


def test_a_run_behind_another_store_that_has_ended_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with KVSServerThread() as server:
        batch, driver = behind(server, monkeypatch)
        batch.submit("a\nb")
        post(driver, "ended")
        driver.ends(0)
        assert batch.wait_one_task() == {"TaskId": 0}, "what it said before is heard"
        with pytest.raises(DriverEndedError, match="the run behind the key-value store has ended with 143"):
            batch.done()
        driver.end()


@pytest.mark.parametrize("phase", [None, "working", "stopping", "ended"])
def test_a_run_behind_another_store_that_has_not_ended_or_is_an_earlier_one_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, phase: str | None
) -> None:
    with KVSServerThread() as server:
        batch, driver = behind(server, monkeypatch)
        if phase == "ended":
            driver.store.put("task source task key", "somebody's", False)
        if phase is None:
            driver.store.put(STATE_KEY, "<Starting...>", False)
        else:
            post(driver, phase)
        other = batch._driver
        looks = iter([*range(4)])

        def look(patience: float) -> bool:
            if next(looks, None) is None:
                driver.ends(0)
            return other.has_ended(patience)

        monkeypatch.setattr(batch, "_driver", SimpleNamespace(has_ended=look))
        batch.submit("a")
        assert batch.wait_one_task() == {"TaskId": 0}
        batch.kill()
        driver.end()


def test_a_run_behind_another_store_that_has_not_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with KVSServerThread() as server:
        batch, driver = behind(server, monkeypatch)
        assert not batch._driver.has_ended(0.01)
        batch.kill()
        driver.end()


def test_several_do_not_get_in_each_others_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disBatch, "_Driver", FakeDriver)
    first = DisBatcher("mine")
    first_driver = FakeDriver.made
    second = DisBatcher("mine")
    for driver in (first_driver, FakeDriver.made):
        driver.sign_in()
    assert first_driver.result_key != FakeDriver.made.result_key
    first.kill()
    second.kill()
