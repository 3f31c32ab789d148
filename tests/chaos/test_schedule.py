"""Schedules: the same for a seed each time, and such that a run can survive them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.schedule import FEATURES, HOSTS, LAST, REST, Event, Schedule, Wall, Work, make_schedule, task_list

SEEDS = range(300)


@pytest.fixture(scope="module")
def schedules() -> list[Schedule]:
    return [make_schedule(seed, FEATURES) for seed in SEEDS]


def of_hosts(schedule: Schedule, host: str) -> list[Event]:
    """Events that a host cannot take several of at once: an addition is none."""
    return [event for event in schedule.events if event.target.split()[-1] == host and event.action != "add"]


def test_a_seed_gives_the_same_schedule_each_time(schedules: list[Schedule]) -> None:
    assert schedules == [make_schedule(seed, FEATURES) for seed in SEEDS]
    assert len({str(schedule) for schedule in schedules}) > 200


def test_a_schedule_reads_well() -> None:
    event = Event(1.5, "cut", "h1", "both ways", 0.25)
    schedule = Schedule(7, (("h1", 2), ("localhost", 1)), (), per_engine=False, exit_code=True, events=(event,))
    assert str(schedule) == "seed 7: -s h1:2,localhost:1 -e\n     1.50 s: cut h1 both ways for 0.25 s"


def test_everything_happens_in_some_schedule(schedules: list[Schedule]) -> None:
    happens = {(event.action, event.target.split()[0]) for schedule in schedules for event in schedule.events}
    assert {action for action, _ in happens} == {
        "kill",
        "power-off",
        "stop",
        "add",
        "cut",
        "reset",
        "freeze",
        "delay",
        "fill",
    }
    killed = {target for action, target in happens if action == "kill"}
    assert killed == {"driver", "context", "engine", "keeper", "launcher", "node"}
    assert {target for action, target in happens if action == "freeze"} == killed - {"launcher"}


@pytest.mark.parametrize("feature", FEATURES)
def test_what_is_no_feature_does_not_happen(feature: str) -> None:
    actions = {event.action for seed in SEEDS for event in make_schedule(seed, [feature]).events}
    of_feature = {
        "kills": {"kill", "power-off"},
        "driver": {"kill"},
        "stops": {"stop"},
        "additions": {"add"},
        "cuts": {"cut"},
        "resets": {"reset"},
        "freezes": {"freeze"},
        "delays": {"delay"},
        "disk": {"fill"},
    }
    assert actions == of_feature[feature]


def test_events_come_in_order_and_a_host_gets_its_rest(schedules: list[Schedule]) -> None:
    for schedule in schedules:
        times = [event.at for event in schedule.events]
        assert times == sorted(times)
        assert not times or times[-1] <= LAST
        for host in HOSTS:
            events = of_hosts(schedule, host)
            for earlier, later in pairwise(events):
                assert later.at >= earlier.at + earlier.lasts + REST


def test_two_hosts_keep_their_power(schedules: list[Schedule]) -> None:
    for schedule in schedules:
        off = [event for event in schedule.events if event.action == "power-off"]
        assert len(off) <= 1
        for event in off:
            later = [other for other in schedule.events if other.at > event.at]
            assert event.target not in {other.target.split()[-1] for other in later}


def test_a_task_list_has_ids_and_lines_as_the_driver_counts_them() -> None:
    items = (Work(0, "plain", 2), Work(5, "below-bash"), Wall(check=True), Work(7, "fails"))
    listed = task_list(Schedule(0, (), items, per_engine=True, exit_code=False, events=()))
    assert listed.text.splitlines() == [
        "#DISBATCH PERENGINE START exec ./attempt 30 start 0",
        "#DISBATCH PERENGINE STOP exec ./attempt 30 stop 0",
        "#DISBATCH REPEAT 2 start 3 step 2 exec ./attempt 0 plain 0",
        "./attempt 5 below-bash 0; exit $?",
        "#DISBATCH BARRIER CHECK",
        "exec ./attempt 7 fails 4",
    ]
    assert listed.barriers == {3: True}
    assert [(task.task_id, task.line, task.repeat_index, task.since) for task in listed.tasks.values()] == [
        (0, 3, 3, 0),
        (1, 3, 5, 0),
        (2, 4, -1, 0),
        (4, 6, -1, 4),
    ]


def test_nothing_always_fails_before_a_barrier_that_checks(schedules: list[Schedule]) -> None:
    for schedule in schedules:
        fails = False
        for item in schedule.items:
            if isinstance(item, Work):
                fails = fails or item.manner == "fails"
            else:
                assert not (item.check and fails)
                fails = False
