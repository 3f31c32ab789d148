from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from disbatch.driver.publisher import PERIOD, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop


class Timer:
    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Clock:
    """Stands for the event loop: time passes when the test says so, and when something costs time."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.time + seconds, action))
        return self.timers[-1]

    def goes_to(self, time: float) -> None:
        self.time = max(time, self.time)
        due = [timer for timer in self.timers if timer.when <= self.time]
        self.timers = [timer for timer in self.timers if timer.when > self.time]
        for timer in due:
            if timer.action is not None:
                timer.action()


class Posts:
    def __init__(self) -> None:
        self.clock = Clock()
        self.times: list[float] = []
        self.cost = 0.0
        self.publisher = Publisher(cast("EventLoop", self.clock), self.post)

    def post(self) -> None:
        self.times.append(self.clock.time)
        self.clock.time += self.cost


@pytest.fixture
def posts() -> Posts:
    return Posts()


def test_nothing_is_posted_while_nothing_changes(posts: Posts) -> None:
    posts.clock.goes_to(100.0)
    assert posts.times == []


def test_many_changes_make_one_post_a_period(posts: Posts) -> None:
    for millisecond in range(1000):
        posts.clock.goes_to(millisecond / 1000)
        posts.publisher.changed()
    assert posts.times == pytest.approx([PERIOD, 2 * PERIOD, 3 * PERIOD], abs=0.004)


def test_the_last_change_is_posted(posts: Posts) -> None:
    posts.publisher.changed()
    posts.clock.goes_to(PERIOD)
    posts.publisher.changed()
    posts.clock.goes_to(100.0)
    assert len(posts.times) == 2


def test_posts_that_take_long_are_few(posts: Posts) -> None:
    posts.cost = 0.05
    for tenth in range(1000):
        posts.clock.goes_to(tenth / 10)
        posts.publisher.changed()
    assert len(posts.times) * posts.cost <= 0.0115 * 100.0


def test_a_closed_publisher_posts_nothing(posts: Posts) -> None:
    posts.publisher.changed()
    posts.publisher.close()
    posts.clock.goes_to(100.0)
    assert posts.times == []
    posts.publisher.close()
