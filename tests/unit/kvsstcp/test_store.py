"""`store`, alone: clients are strings, deliveries are values."""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from disbatch.kvsstcp.dump import decode_snapshot, encode_snapshot
from disbatch.kvsstcp.store import _KEY_COST, _VALUE_COST, Delivery, Store
from disbatch.kvsstcp.wire import ASTR


def taken(client: str, value: bytes, key: bytes = b"k") -> Delivery[str]:
    return Delivery(client, key, ASTR, value, taken=True)


def seen(client: str, value: bytes, key: bytes = b"k") -> Delivery[str]:
    return Delivery(client, key, ASTR, value, taken=False)


def store_of(*values: bytes) -> Store[str]:
    store: Store[str] = Store()
    for value in values:
        assert store.put(b"k", ASTR, value) == []
    return store


def values_of(store: Store[str], key: bytes) -> list[bytes]:
    found = []
    while store.count(key):
        value, _ = store.take(key)
        assert value is not None
        found.append(value[1])
    return found


def test_get_takes_the_oldest_and_view_shows_the_newest() -> None:
    store = store_of(b"1", b"2")
    assert store.view("a", b"k") == [seen("a", b"2")]
    assert store.get("a", b"k") == [taken("a", b"1")]
    assert store.get("a", b"k") == [taken("a", b"2")]
    assert store.get("a", b"k") == []


def test_a_put_serves_all_views_and_the_first_get_in_the_order_they_came() -> None:
    store = store_of()
    for client, wait in (("v1", store.view), ("g1", store.get), ("v2", store.view), ("g2", store.get)):
        assert wait(client, b"k") == []
    assert store.put(b"k", ASTR, b"1") == [seen("v1", b"1"), taken("g1", b"1"), seen("v2", b"1")]
    assert store.put(b"k", ASTR, b"2") == [taken("g2", b"2")]
    assert store.put(b"k", ASTR, b"3") == []
    assert values_of(store, b"k") == [b"3"]


def test_a_new_wait_cancels_the_old_one() -> None:
    store = store_of()
    store.get("a", b"old")
    store.view("a", b"k")
    assert store.put(b"old", ASTR, b"1") == []
    assert store.put(b"k", ASTR, b"2") == [seen("a", b"2")]
    store.get("b", b"k")
    assert store.get("c", b"old") == [taken("c", b"1", b"old")]


def test_an_answer_at_once_cancels_the_old_wait_too() -> None:
    store = store_of(b"1")
    store.get("a", b"old")
    assert store.get("a", b"k") == [taken("a", b"1")]
    assert store.put(b"old", ASTR, b"2") == []


def test_who_has_gone_loses_nothing() -> None:
    store = store_of()
    store.get("a", b"k")
    assert store.forget("a") == []
    store.put(b"k", ASTR, b"1")
    assert values_of(store, b"k") == [b"1"]


def test_what_was_not_received_comes_back_in_its_old_place() -> None:
    store = store_of(b"1", b"2", b"3")
    unreceived = store.get("a", b"k") + store.view("a", b"k") + store.get("a", b"k")
    assert store.forget("a", unreceived) == []
    assert values_of(store, b"k") == [b"1", b"2", b"3"]


def test_what_was_not_received_goes_to_those_who_wait_by_now() -> None:
    store = store_of(b"1", b"2", b"3")
    unreceived = [delivery for _ in range(3) for delivery in store.get("a", b"k")]
    store.get("b", b"k")
    store.view("c", b"k")
    assert store.forget("a", unreceived) == [taken("b", b"1"), seen("c", b"1")]
    assert values_of(store, b"k") == [b"2", b"3"]


def test_take_never_waits() -> None:
    store = store_of(b"1")
    assert store.take(b"k") == ((ASTR, b"1"), [])
    assert store.take(b"k") == (None, [])


@pytest.mark.parametrize(
    ("events", "records"),
    [
        (b"gpvw", [b"p:k", b"v:k", b"g:k", b"w:k", b"w:k", b"p:k", b"v:k", b"g:k"]),
        (b"g", [b"g:k", b"g:k"]),
        (b"w", [b"w:k", b"w:k"]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("watched", [b"k", b""])
def test_a_monitor_key_gets_records_of_what_was_done(watched: bytes, events: bytes, records: list[bytes]) -> None:
    store = store_of()
    store.monitor(b"m", watched, b"gpvw")
    store.monitor(b"m", watched, events)
    store.put(b"k", ASTR, b"1")
    store.view("a", b"k")
    store.get("a", b"k")
    store.view("a", b"k")
    store.get("b", b"k")
    store.put(b"k", ASTR, b"2")
    assert values_of(store, b"m") == records


def test_the_watch_of_every_key_leaves_out_monitor_keys() -> None:
    store = store_of()
    store.monitor(b"m1", b"", b"gpvw")
    store.monitor(b"m2", b"k", b"p")
    assert store.get("a", b"m2") == []
    assert store.put(b"k", ASTR, b"1") == [taken("a", b"p:k", b"m2")]
    store.put(b"m2", ASTR, b"2")
    assert values_of(store, b"m1") == [b"p:k"]


def test_a_key_is_a_monitor_key_no_longer_when_its_last_event_is_switched_off() -> None:
    store = store_of()
    store.monitor(b"m1", b"", b"p")
    store.monitor(b"m2", b"k", b"p")
    store.monitor(b"m2", b"k", b"")
    store.put(b"m2", ASTR, b"1")
    assert values_of(store, b"m1") == [b"p:m2"]


def test_an_event_that_two_watches_list_is_recorded_once() -> None:
    store = store_of()
    store.monitor(b"m", b"", b"pg")
    store.monitor(b"m", b"k", b"p")
    store.put(b"k", ASTR, b"1")
    assert values_of(store, b"m") == [b"p:k"]


def test_a_monitor_key_that_watches_itself_comes_to_an_end() -> None:
    store = store_of()
    store.monitor(b"m", b"m", b"gpvw")
    assert store.get("a", b"m") == [taken("a", b"w:m", b"m")]
    assert store.take(b"m") == ((ASTR, b"g:m"), [])
    assert store.count(b"m") == 1


def test_the_snapshot_tells_counts_waiters_and_values() -> None:
    store = store_of(b"1", b"2")
    store.get("a", b"k")
    store.view("a", b"k")
    store.get("b", b"wanted")
    store.view("c", b"wanted")
    store.put(b"long", ASTR, b"<" + b"x" * 60 + b">")
    store.put(b"fits", ASTR, b"x" * 50)
    store.put(b"json", b"JSON", b"[1]")
    assert store.snapshot() == (
        [1, 5, 1, 2],
        [(b"wanted", 2)],
        [
            (b"fits", 1, (ASTR, b"x" * 50)),
            (b"json", 1, (b"JSON", None, 3)),
            (b"k", 1, (ASTR, b"2")),
            (b"long", 1, (ASTR, b"<" + b"x" * 23 + b"..." + b"x" * 22 + b">", 62)),
        ],
    )
    assert decode_snapshot(encode_snapshot(store.snapshot())) == store.snapshot()


def test_a_snapshot_may_be_of_some_keys_alone() -> None:
    store: Store[str] = Store()
    for key in (b"a", b"b"):
        store.put(key, ASTR, b"1")
        store.get("client of " + key.decode(), b"waited for " + key)
    _, waiting, held = store.snapshot([b"a", b"waited for b"])
    assert waiting == [(b"waited for b", 1)]
    assert [key for key, *_ in held] == [b"a"]


def test_nothing_is_left_of_keys_that_are_done_with() -> None:
    store = store_of()
    for number in range(10):
        key = b"%d" % number
        store.get("a", key)
        store.put(key, ASTR, b"")
        store.put(key, ASTR, b"")
        store.take(key)
        store.view("a", key)
        store.cancel("a")
    assert not store._values
    assert not store._waiters
    assert not store._awaited


class AgainstAModel(RuleBasedStateMachine):
    """Get, view and put beside a model that is slow and plain. Each client holds what it has been given.

    What was put is, at any time, in the store or with exactly one client, unless a client that received it has gone.
    """

    keys = st.sampled_from([b"k", b"l"])
    clients = st.sampled_from(["a", "b", "c", "d"])

    def __init__(self) -> None:
        super().__init__()
        self.store: Store[str] = Store()
        self.values: dict[bytes, deque[bytes]] = defaultdict(deque)
        self.waits: list[tuple[str, bytes, bool]] = []
        self.unreceived: dict[str, list[Delivery[str]]] = defaultdict(list)
        self.numbers = count()

    @rule(key=keys)
    def put(self, key: bytes) -> None:
        value = b"%d" % next(self.numbers)
        self.check(self.store.put(key, ASTR, value), self.expect_put(key, value, self.values[key].append))

    @rule(client=clients, key=keys, takes=st.booleans())
    def wait(self, client: str, key: bytes, *, takes: bool) -> None:
        self.waits = [wait for wait in self.waits if wait[0] != client]
        expected = []
        held = self.values[key]
        if held:
            value = held.popleft() if takes else held[-1]
            expected = [Delivery(client, key, ASTR, value, takes)]
        else:
            self.waits.append((client, key, takes))
        self.check((self.store.get if takes else self.store.view)(client, key), expected)

    @rule(client=clients)
    def receive(self, client: str) -> None:
        self.unreceived.pop(client, None)

    @rule(client=clients)
    def vanish(self, client: str) -> None:
        self.waits = [wait for wait in self.waits if wait[0] != client]
        unreceived = self.unreceived.pop(client, [])
        returned: dict[bytes, list[bytes]] = defaultdict(list)
        expected = []
        for delivery in unreceived:
            if delivery.taken:
                expected += self.expect_put(delivery.key, delivery.value, returned[delivery.key].append)
        for key, values in returned.items():
            self.values[key].extendleft(reversed(values))
        self.check(self.store.forget(client, unreceived), expected)

    def expect_put(self, key: bytes, value: bytes, keep: object) -> list[Delivery[str]]:
        expected, waits, gone = [], [], False
        for client, awaited, takes in self.waits:
            if awaited != key or (takes and gone):
                waits.append((client, awaited, takes))
            else:
                expected.append(Delivery(client, key, ASTR, value, takes))
                gone = gone or takes
        self.waits = waits
        if not gone:
            assert callable(keep)
            keep(value)
        return expected

    def check(self, deliveries: list[Delivery[str]], expected: list[Delivery[str]]) -> None:
        assert deliveries == expected
        for delivery in deliveries:
            self.unreceived[delivery.client].append(delivery)

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        _, waiting, held = self.store.snapshot()
        assert dict(waiting) == {k: n for k in (b"k", b"l") if (n := sum(wait[1] == k for wait in self.waits))}
        assert {key: (number, newest[1]) for key, number, newest in held} == {
            key: (len(values), values[-1]) for key, values in self.values.items() if values
        }
        assert self.store.size == sum(
            _KEY_COST + len(key) + sum(_VALUE_COST + len(value) for value in values)
            for key, values in self.values.items()
            if values
        )


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(stateful_step_count=25)


# Values that are taken as one


def test_a_value_behind_one_that_is_there_is_taken_with_it() -> None:
    store: Store[str] = Store()
    assert store.put_behind(b"k", b"TAG1", b"one") == []
    assert store.put_behind(b"k", b"TAG1", b"two") == []
    assert store.count(b"k") == 1
    assert store.get("a", b"k") == [Delivery("a", b"k", b"TAG1", b"onetwo", taken=True)]


def test_a_value_behind_none_goes_to_those_who_wait() -> None:
    store: Store[str] = Store()
    store.get("a", b"k")
    assert store.put_behind(b"k", b"TAG1", b"one") == [Delivery("a", b"k", b"TAG1", b"one", taken=True)]
    assert store.count(b"k") == 0


def test_values_of_another_tag_or_behind_a_long_one_are_taken_by_themselves() -> None:
    store: Store[str] = Store()
    for tag, value in ((b"TAG1", b"one"), (b"TAG2", b"x" * 100_000), (b"TAG2", b"three")):
        store.put_behind(b"k", tag, value)
    assert store.count(b"k") == 3


def test_a_value_behind_another_counts_and_is_recorded_as_a_put() -> None:
    store: Store[str] = Store()
    store.monitor(b"m", b"k", b"p")
    for _ in range(2):
        store.put_behind(b"k", b"TAG1", b"v")
    assert store.take(b"m")[0] == store.take(b"m")[0] == (ASTR, b"p:k")
    assert store.snapshot()[0][1] == 2


# How much there may be


def test_a_full_store_has_room_for_what_is_taken_at_once_and_again_when_something_has_been_taken() -> None:
    store: Store[str] = Store(limit=5000)
    kept = b"x" * 3000
    assert store.fits(b"k", kept)
    store.put(b"k", ASTR, kept)
    assert not store.fits(b"k", kept)
    store.view("a", b"l")
    assert not store.fits(b"l", kept)
    store.get("b", b"l")
    assert store.fits(b"l", kept)
    store.take(b"k")
    assert store.fits(b"k", kept)


def test_keys_without_a_value_worth_mentioning_fill_the_store_too() -> None:
    store: Store[str] = Store(limit=1_000_000)
    keys = 0
    while store.fits(b"%d" % keys, b""):
        store.put(b"%d" % keys, ASTR, b"")
        keys += 1
    assert 500 < keys < 1000


def test_monitors_take_room_as_long_as_they_watch() -> None:
    store = store_of()
    for events in (b"p", b"gp", b"", b""):
        store.monitor(b"m", b"k", events)
        assert bool(store.size) == bool(events)


def test_a_full_store_records_nothing_that_is_not_taken_at_once() -> None:
    store: Store[str] = Store(limit=10_000)
    store.monitor(b"m", b"", b"p")
    while store.fits(b"m", b"p:k"):
        store.put(b"k", ASTR, b"x")
    held = store.count(b"m")
    store.put(b"k", ASTR, b"x")
    assert store.count(b"m") == held
    store.take(b"k")


def test_the_values_that_are_taken_as_one_take_as_much_room_as_they_have_bytes() -> None:
    store = store_of(b"1")
    before = store.size
    store.put_behind(b"k", ASTR, b"22")
    assert store.size == before + 2
    store.take(b"k")
    assert store.size == 0
