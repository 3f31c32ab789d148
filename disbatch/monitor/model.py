"""What the monitor shows, and what its keys do.

Pure: what is heard of the run, keys and the time come in; what is to be asked of the run, and the wish to end, go out.
It must not know what a terminal is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.records import record
from disbatch.watch.pace import SHORT, Pace
from disbatch.watch.state import ABSENT, AWAY, CUT, ENDED, EXPECTED, GONE, LEFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from disbatch.watch.state import ContextState, EngineState, RunningTask, RunState

SILENCE = 4.0
"""Seconds without an answer of the driver, which is asked once a second, from which on that is said."""

STATES = (CUT, "expected", "leaving", "running", ABSENT, LEFT)
"""What an engine or a context may be called, in the order in which they ask for attention."""

UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END = "up", "down", "page up", "page down", "home", "end"
ENTER, ESCAPE, BACKSPACE = "enter", "escape", "backspace"
"""Keys that are no characters; those that are go by them."""

_MOVES = {"u": UP, "k": UP, "d": DOWN, "j": DOWN, "g": HOME, "G": END}

SORTS = ("number", "name", "state", "places", "assigned", "finished", "failed", "rate", "heard")
"""What the lines of the table may be sorted by: most first, but for numbers, names and when they were heard."""

_LONGEST_FILTER = 200

# Events: what is heard of the run.


@record
class Seen:
    """The state of the run, as it was posted last; None when it has just begun."""

    state: RunState | None


@record
class Listed:
    """What runs on the engine of that rank, and how many more tasks than these do."""

    engine: int
    tasks: tuple[RunningTask, ...]
    more: int


@record
class Failed:
    """The run could not be asked, for that reason."""

    why: str


@record
class Over:
    """The run has ended, and nothing more will be heard of it."""


@record
class Answered:
    """What has become of an order, in words."""

    text: str


Event = Seen | Listed | Failed | Over | Answered

# What a key may ask for.


@record
class Quit:
    """Leave."""


@record
class Stop:
    """Give the driver this order; `what` it is about, in words."""

    order: messages.StopEngine | messages.StopContext
    what: str


# What there is to show.


@record
class Row:
    """A line of the table: a context, with the sums of its engines, or an engine; both have ranks of their own."""

    is_context: bool
    rank: int
    context_rank: int
    name: str
    state: str
    active: int
    cylinders: int
    assigned: int
    finished: int
    failed: int
    rate: float | None
    heard: float | None
    words: str
    """What a filter looks through."""

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"context {self.name}" if self.is_context else f"engine {self.rank} on {self.name}"


@record
class Layout:
    """How the lines of a window are used, from its top: `rows` are those of the table, below its heading."""

    header: int
    heading: int
    rows: int
    footer: int


HEADER = 5
"""Lines of the header where there is room for them."""


def layout(height: int) -> Layout:
    """How a window of that height is used; the header gives way first, and the table last."""
    footer = int(height > 1)
    heading = int(height > 3)  # noqa: PLR2004 - a line each for header, row and footer are worth more
    header = min(HEADER, height, max(1, height - 6))
    return Layout(header, heading, max(0, height - header - heading - footer), footer)


TABLE, DETAILS, HELP = "table", "details", "help"
"""What stands below the header."""

KEYS = (
    ("u d, arrows, j k", "one line up, down"),
    ("PgUp PgDn", "one page up, down"),
    ("Home End, g G", "to the first line, to the last"),
    ("Enter", "what runs on the engine; Esc goes back"),
    ("E", "stop the engine under the cursor: y lets it finish what"),
    ("", "runs there, ! ends that at once (it runs again elsewhere),"),
    ("", "n leaves it alone"),
    ("C", "stop the context under the cursor, or that of the engine"),
    ("s", "sort by the next column"),
    ("r", "sort the other way round"),
    ("/", "show only lines with a text in them; Esc shows all again"),
    ("x", "hide what has gone, or show it again"),
    ("h, ?", "this help; Esc goes back"),
    ("q", "quit; the run goes on"),
)
"""Keys and what they do, for the help."""


class Monitor:
    """The monitor's mind: told by `passed`, `resized`, `heard` and `pressed`, read by `render`."""

    def __init__(self, *, may_stop: bool = True) -> None:
        self.may_stop = may_stop
        """Whether the driver takes orders from this user, and tells him of commands: it is the same right."""
        self.width, self.height = 80, 24
        self.time = 0.0
        """Now, in seconds since the epoch."""
        self.clock = 0.0
        """Now, in seconds since any other time, by a clock that nobody sets."""
        self.state: RunState | None = None
        self.is_over = False
        self.why_silent = ""
        self.page = TABLE
        self.rows: list[Row] = []
        """What the table has, in its order, filtered."""
        self.cursor = 0
        self.top = 0
        """First line of the table that is in the window."""
        self.scroll = 0
        """The same of the help or of details."""
        self.sort = SORTS[0]
        self.is_reversed = False
        self.filter = ""
        self.is_typing = False
        """Whether keys are added to the filter."""
        self.hides_gone = False
        self.question: Row | None = None
        """What the user is asked about: whether to stop it."""
        self.message = ""
        self.looking_at: Row | None = None
        """What the details are of."""
        self.tasks: tuple[RunningTask, ...] | None = None
        """What runs on that engine; None if it is not known yet."""
        self.more_tasks = 0
        self._pace = Pace()
        self._heard_at: float | None = None
        self._begun_at: float | None = None
        self._counts: deque[tuple[float, dict[int, int]]] = deque()
        """When which engine had finished how many tasks."""
        self._all: list[tuple[Row | None, list[Row]]] = []

    # Time, and the window.

    def passed(self, time: float, clock: float) -> None:
        """Take note of the time."""
        self.time, self.clock = time, clock
        if self._begun_at is None:
            self._begun_at = clock

    def resized(self, width: int, height: int) -> None:
        """Take note of the size of the window."""
        self.width, self.height = max(1, width), max(1, height)
        self._keep_in_sight()

    @property
    def layout(self) -> Layout:
        """How the window is used."""
        return layout(self.height)

    # What is heard.

    def heard(self, event: Event) -> None:
        """Take note of what was heard of the run."""
        if isinstance(event, Seen):
            self._heard_at, self.why_silent = self.clock, ""
            if event.state is not None:
                self._seen(event.state)
        elif isinstance(event, Listed):
            if event.engine == self.engine_asked_about:
                self.tasks, self.more_tasks = event.tasks, event.more
                self._keep_in_sight()
        elif isinstance(event, Failed):
            self.why_silent = event.why
        elif isinstance(event, Over):
            self._end()
        else:
            self.message = event.text

    def _seen(self, state: RunState) -> None:
        self.state = state
        self._pace.note(self.clock, state.finished)
        self._counts.append((self.clock, {engine.rank: engine.finished for engine in state.engines}))
        while len(self._counts) > 2 and self.clock - self._counts[1][0] >= SHORT:  # noqa: PLR2004 - one difference
            self._counts.popleft()
        self._all = _grouped(state, self._rates(state.engines))
        if self.looking_at is not None:
            self.looking_at = self._found(self.looking_at) or self.looking_at
        self._arrange()
        if state.phase == ENDED:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self.question = None

    def _rates(self, engines: Iterable[EngineState]) -> dict[int, float]:
        (since, before), (now, _) = self._counts[0], self._counts[-1]
        if now <= since:
            return {}
        return {engine.rank: (engine.finished - before.get(engine.rank, 0)) / (now - since) for engine in engines}

    def _found(self, row: Row) -> Row | None:
        """What is known now of the same context or engine."""
        for context, engines in self._all:
            for other in [context] if row.is_context else engines:
                if other is not None and other.rank == row.rank:
                    return other
        return None

    @property
    def engine_asked_about(self) -> int | None:
        """Rank of the engine of which it is of interest what it runs."""
        row = self.looking_at
        return row.rank if row is not None and not row.is_context and self.may_stop else None

    @property
    def silent_for(self) -> float | None:
        """Seconds for which the driver has not answered, if that is worth saying."""
        since = self._begun_at if self._heard_at is None else self._heard_at
        if self.is_over or since is None or self.clock - since < SILENCE:
            return None
        return self.clock - since

    @property
    def rate(self) -> float | None:
        """Tasks that end in a second now."""
        return self._pace.rate if self._goes_on else None

    @property
    def left(self) -> tuple[float, float] | None:
        """Seconds that the run may still take, at least and at most; None if that cannot be said."""
        return self._pace.left(self.state.tasks_left) if self.state is not None and self._goes_on else None

    @property
    def _goes_on(self) -> bool:
        """Whether the run goes on, as far as is known now."""
        return not self.is_over and self.silent_for is None

    # What is shown.

    def _arrange(self) -> None:
        """Make the table anew; the cursor stays on what it was on."""
        before = self.rows[self.cursor] if self.cursor < len(self.rows) else None
        groups = [(row, self._sorted(engines)) for row, engines in self._all]
        contexts = self._sorted([row for row, _ in groups if row is not None])
        of_context = {row.rank: engines for row, engines in groups if row is not None}
        rows: list[Row] = []
        for context in contexts:
            rows += self._chosen(context, of_context[context.rank])
        for row, engines in groups:
            if row is None:
                rows += self._chosen(None, engines)
        self.rows = rows
        if before is not None:
            same = (
                place
                for place, row in enumerate(rows)
                if row.rank == before.rank and row.is_context == before.is_context
            )
            self.cursor = next(same, self.cursor)
        self._keep_in_sight()

    def _sorted(self, rows: list[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: _order(row, self.sort), reverse=self.is_reversed)

    def _chosen(self, context: Row | None, engines: list[Row]) -> list[Row]:
        """Rows of a context that are to be shown; a context that the filter finds shows all of its engines."""
        wanted = self.filter.lower()
        finds_all = not wanted or (context is not None and wanted in context.words)
        shown = [
            row for row in engines if (finds_all or wanted in row.words) and not (self.hides_gone and row.state in AWAY)
        ]
        if context is None:
            return shown
        is_hidden = self.hides_gone and context.state == LEFT
        return [context, *shown] if shown or (finds_all and not is_hidden) else []

    def _keep_in_sight(self) -> None:
        rows = self.layout.rows
        self.cursor = max(0, min(self.cursor, len(self.rows) - 1))
        self.top = max(0, min(self.top, self.cursor, len(self.rows) - rows))
        if rows:
            self.top = max(self.top, self.cursor - rows + 1)
        self.scroll = max(0, min(self.scroll, self._length - rows - self.layout.heading))

    @property
    def _length(self) -> int:
        """Lines of the help or of details."""
        if self.page == HELP:
            return len(KEYS)
        return len(FACTS) + len(self.tasks or ()) + bool(self.more_tasks)

    @property
    def under_cursor(self) -> Row | None:
        """What keys are about."""
        if self.page == DETAILS:
            return self.looking_at
        return self.rows[self.cursor] if self.rows else None

    # Keys.

    def pressed(self, key: str) -> Quit | Stop | None:
        """Do what a key asks for; what is to be done outside of this."""
        if self.question is not None:
            return self._answered(key, self.question)
        if self.is_typing:
            self._typed(key)
            return None
        self.message = ""
        key = _MOVES.get(key, key)
        if key == "q":
            return Quit()
        if key in ("h", "?"):
            self._turn_to(TABLE if self.page == HELP else HELP)
        elif key in _MOVES_BY:
            self._move(key)
        elif key in ("E", "C") and self.page != HELP:
            self._ask(key)
        elif self.page != TABLE:
            if key == ESCAPE:
                self._turn_to(TABLE)
        elif not self._look_otherwise(key) and self.is_over:
            return Quit()
        return None

    def _move(self, key: str) -> None:
        page = max(1, self.layout.rows - 1)
        if self.page == TABLE:
            self.cursor = _MOVES_BY[key](self.cursor, page, len(self.rows) - 1)
        else:
            self.scroll = _MOVES_BY[key](self.scroll, page, self._length)
        self._keep_in_sight()

    def _turn_to(self, page: str) -> None:
        self.page, self.scroll = page, 0
        if page != DETAILS:
            self.looking_at, self.tasks, self.more_tasks = None, None, 0

    def _look_otherwise(self, key: str) -> bool:
        """Do what a key asks for that is about the table alone; whether it is such a key."""
        if key == ENTER and self.rows:
            self.looking_at = self.rows[self.cursor]
            self._turn_to(DETAILS)
        elif key == ESCAPE and self.filter:
            self.filter = ""
            self._arrange()
        elif key == "/":
            self.is_typing = True
        elif key == "x":
            self.hides_gone = not self.hides_gone
            self.message = "what has gone is hidden" if self.hides_gone else "what has gone is shown"
            self._arrange()
        elif key in ("s", "r"):
            self._sort_otherwise(key)
        else:
            return False
        return True

    def _sort_otherwise(self, key: str) -> None:
        if key == "s":
            self.sort, self.is_reversed = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)], False
        else:
            self.is_reversed = not self.is_reversed
        self._arrange()
        self.cursor = 0  # what is sorted for is there
        self._keep_in_sight()
        self.message = f"sorted by {self.sort}{', the other way round' if self.is_reversed else ''}"

    def _typed(self, key: str) -> None:
        """Take a key that belongs to the text of the filter."""
        if key in (ENTER, ESCAPE):
            self.is_typing = False
            if key == ESCAPE:
                self.filter = ""
        elif key == BACKSPACE:
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self.filter = (self.filter + key)[:_LONGEST_FILTER]
        elif key in _MOVES_BY:
            self._move(key)
            return
        self._arrange()

    def _ask(self, key: str) -> None:
        """Ask whether to stop what is under the cursor: an engine, or a context."""
        row = self.under_cursor
        if row is None:
            self.message = "there is nothing to stop"
            return
        if key == "C" and not row.is_context:
            row = next((context for context, _ in self._all if context and context.rank == row.context_rank), None)
        if row is None:
            self.message = "its context is not known"
        elif self.is_over:
            self.message = "the run has ended"
        elif not self.may_stop:
            self.message = "a file for observers gives no right to stop anything; the run's script (--mon) does"
        elif row.state in AWAY:
            self.message = f"{row.title} has gone already"
        elif key == "E" and row.is_context:
            self.message = "E stops engines; C stops the context under the cursor"
        else:
            self.question = row

    def _answered(self, key: str, target: Row) -> Stop | None:
        if key not in ("y", "!", "n", "q", ESCAPE):
            return None
        self.question = None
        if key not in ("y", "!"):
            self.message = f"{target.title} goes on"
            return None
        now = key == "!"
        order = messages.StopContext(target.rank, now) if target.is_context else messages.StopEngine(target.rank, now)
        self.message = f"asking the driver to stop {target.title}"
        return Stop(order, target.title)


_MOVES_BY: dict[str, Callable[[int, int, int], int]] = {
    UP: lambda place, _page, _last: max(0, place - 1),
    DOWN: lambda place, _page, _last: place + 1,
    PAGE_UP: lambda place, page, _last: max(0, place - page),
    PAGE_DOWN: lambda place, page, _last: place + page,
    HOME: lambda _place, _page, _last: 0,
    END: lambda _place, _page, last: last,
}
"""Where each of these keys leads from a place, by a page, with that last place; it may be too far."""

FACTS = ("state", "host", "context", "process", "places", "tasks", "failed", "rate", "heard", "runs")
"""What the details of an engine or a context begin with, a line each."""


def rows_of(state: RunState, rates: Mapping[int, float] | None = None) -> list[Row]:
    """Lines for all contexts, each with its engines, in the order of their ranks."""
    return [
        row
        for context, engines in _grouped(state, rates or {})
        for row in ([context, *engines] if context is not None else engines)
    ]


def _grouped(state: RunState, rates: Mapping[int, float]) -> list[tuple[Row | None, list[Row]]]:
    """Each context with its engines; engines of contexts that nobody knows come last."""
    of_context: dict[int, list[Row]] = {context.rank: [] for context in state.contexts}
    strays: list[Row] = []
    for engine in state.engines:
        of_context.get(engine.context_rank, strays).append(_engine_row(engine, rates.get(engine.rank)))
    groups: list[tuple[Row | None, list[Row]]] = [
        (_context_row(context, of_context[context.rank]), of_context[context.rank]) for context in state.contexts
    ]
    return [*groups, (None, strays)] if strays else groups


def _engine_row(engine: EngineState, rate: float | None) -> Row:
    state = engine.in_words
    return Row(
        is_context=False,
        rank=engine.rank,
        context_rank=engine.context_rank,
        name=engine.node,
        state=state,
        active=engine.active,
        cylinders=engine.cylinders,
        assigned=engine.assigned,
        finished=engine.finished,
        failed=engine.failed,
        rate=None if engine.status in (GONE, EXPECTED) else rate,
        heard=engine.heard,
        words=f"{engine.node}\n{engine.host}\n{state}".lower(),
    )


def _context_row(context: ContextState, engines: Sequence[Row]) -> Row:
    state = _state_of(context, {row.state for row in engines})
    there = [row for row in engines if row.state not in AWAY]
    rates = [row.rate for row in there if row.rate is not None]
    times = [row.heard for row in engines if row.heard is not None]
    return Row(
        is_context=True,
        rank=context.rank,
        context_rank=context.rank,
        name=context.label,
        state=state,
        active=sum(row.active for row in there),
        cylinders=sum(row.cylinders for row in there),
        assigned=sum(row.assigned for row in engines),
        finished=sum(row.finished for row in engines),
        failed=sum(row.failed for row in engines),
        rate=sum(rates) if rates else None,
        heard=max(times, default=None),
        words=f"{context.label}\n{context.system}\n{state}".lower(),
    )


def _state_of(context: ContextState, states: set[str]) -> str:
    """Word for the state of a context whose engines are in these: that of those which do most."""
    if context.gone:
        return LEFT
    if not states:
        return "expected"
    return next((state for state in ("running", "expected", "leaving", CUT) if state in states), "leaving")


def _order(row: Row, sort: str) -> tuple[float, str, int]:
    """What a row is sorted by: lowest first."""
    number = {
        "state": STATES.index(row.state) if row.state in STATES else len(STATES),
        "places": -row.active,
        "assigned": -row.assigned,
        "finished": -row.finished,
        "failed": -row.failed,
        "rate": -(row.rate or 0.0),
        "heard": row.heard or 0.0,
    }.get(sort, 0.0)
    return number, row.name if sort == "name" else "", row.rank
