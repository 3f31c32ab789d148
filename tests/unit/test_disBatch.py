"""`disBatch`, with this test in the place of the driver: it takes what is submitted, and says how it has ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from disbatch import disBatch
from disbatch.disBatch import DisBatcher, DriverEndedError
from disbatch.errors import DisbatchError
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.thread import KVSServerThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIGN_IN = ("task source name", "task source done task", "task source result key", "task source task key")


class FakeDriver:
    """What a driver is to the class, and the driver's side of the store."""

    made: FakeDriver

    def __init__(self, arguments: Sequence[str], secret: str) -> None:
        type(self).made = self
        self.arguments = list(arguments)
        self.has_ended = False
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

    def wait(self) -> None:
        self.waited = True

    def end(self) -> None:
        self.killed = True

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


def test_results_end_when_nothing_is_under_way(batch: DisBatcher, driver: FakeDriver) -> None:
    results = batch.map(["a", "b"])
    driver.ends(1)
    assert next(results)["TaskId"] == 1
    batch.submit("c")
    driver.ends(0, 2)
    assert [report["TaskId"] for report in results] == [0, 2]


def test_nothing_is_waited_for_that_is_not_under_way(batch: DisBatcher) -> None:
    with pytest.raises(DisbatchError, match="no task is under way"):
        batch.wait_one_task()
    with pytest.raises(DisbatchError, match="no task is under way"):
        batch.syncTasks([7])


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
    driver.has_ended = True
    assert batch.wait_one_task() == {"TaskId": 0}, "what it said before is heard"
    with pytest.raises(DriverEndedError, match="ended with 1: it is sorry"):
        batch.wait_one_task()


def test_a_driver_behind_another_store_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with KVSServerThread() as server:
        assert server.secret is not None
        monkeypatch.setenv("KVSSTCP_SECRET", server.secret.decode())
        where = f"{server.cinfo[0]}:{server.cinfo[1]}"
        batch = DisBatcher("mine", kvsserver=where)
        driver = FakeDriver([where], server.secret.decode())
        driver.sign_in()
        batch.submit("a")
        driver.ends(0)
        batch.done()
        assert driver.get(driver.task_key) == "a"
        assert driver.get(driver.task_key) == driver.sentinel


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
