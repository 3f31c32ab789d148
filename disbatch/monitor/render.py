"""The monitor's picture: lines of styled text, never more or wider than the window.

Pure. It must not know how a style looks, nor touch a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.monitor import model
from disbatch.monitor.cells import cut, fitted, shown, width
from disbatch.records import record
from disbatch.watch import words
from disbatch.watch.state import ABSENT, CUT, ENDED, LEFT, PHASES, WORKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from disbatch.monitor.model import Monitor, Row
    from disbatch.watch.state import ContextState, EngineState, RunningTask, RunState

Span = tuple[str, str]
"""A text, and the name of its style."""
Line = list[Span]

PLAIN, STRONG, FAINT, GOOD, BAD, WARNING, HEADING, CURSOR = (
    "plain", "strong", "faint", "good", "bad", "warning", "heading", "cursor",
)  # fmt: skip
"""Styles."""

_STATE_STYLES = {"running": GOOD, "expected": FAINT, "leaving": WARNING, CUT: BAD, ABSENT: WARNING, LEFT: FAINT}

_GAP = "   "
_BAR_MOST = 40
_MILLION = 1_000_000


@record
class Column:
    """A column of the table; columns of low rank give way first where the window is narrow."""

    title: str
    cells: int
    rank: int
    text: Callable[[Row, float], str]
    right: bool = True


COLUMNS = (
    Column("state", 8, 9, lambda row, _now: row.state, right=False),
    Column("places", 9, 8, lambda row, _now: f"{_short(row.active, 4)}/{_short(row.cylinders, 4)}"),
    Column("assigned", 9, 3, lambda row, _now: _short(row.assigned, 9)),
    Column("finished", 9, 7, lambda row, _now: _short(row.finished, 9)),
    Column("failed", 7, 6, lambda row, _now: _short(row.failed, 7)),
    Column("rate", 8, 4, lambda row, _now: words.rate(row.rate)),
    Column("heard", 6, 5, lambda row, now: ago(row.heard, now)),
)
"""All but the first, which is as wide as there is room."""

_NAME_LEAST, _NAME_MOST = 10, 40


def frame(monitor: Monitor, *, unicode: bool = True) -> list[Line]:
    """The lines of the window from its top; what is not there is empty. Without `unicode` all of it is ASCII."""
    layout = monitor.layout
    lines = _header(monitor, layout.header, unicode=unicode)
    if monitor.page == model.TABLE:
        lines += _table(monitor, layout, unicode=unicode)
    else:
        lines += _page(monitor, layout.heading + layout.rows, unicode=unicode)
    lines += [[] for _ in range(monitor.height - layout.footer - len(lines))]
    last = _footer(monitor, unicode=unicode)
    if layout.footer:
        lines.append(last)
    elif monitor.question is not None or monitor.is_typing:
        lines[-1] = last
    return [_clipped(line, monitor.width) for line in lines]


def _clipped(line: Line, cells: int) -> Line:
    """As much of a line as fits."""
    kept: Line = []
    for text, style in line:
        part = cut(text, cells)
        if part:
            kept.append((part, style))
        cells -= width(part)
        if part != text:
            break
    return kept


# The header.


def _header(monitor: Monitor, height: int, *, unicode: bool) -> list[Line]:
    state = monitor.state
    notice = _notice(monitor, unicode=unicode)
    if state is None:
        lines: list[Line] = [[("disbatch", STRONG), (f"{_GAP}the run has just begun", PLAIN)]]
    else:
        lines = summary(
            state,
            monitor.width,
            elapsed=elapsed(state, monitor.time, is_over=monitor.is_over),
            rate=monitor.rate,
            left=monitor.left,
            is_over=monitor.is_over,
            unicode=unicode,
        )
    if notice is not None:
        lines = [*lines[: height - 1], notice]
    return [*lines, *([] for _ in range(height))][:height]


def _notice(monitor: Monitor, *, unicode: bool) -> Line | None:
    if monitor.is_over:
        # Nobody is told the last of a run that lives no longer.
        is_last = monitor.state is None or monitor.state.phase == ENDED
        said = "The run has ended." if is_last else "The run has ended; this is what was seen of it last."
        return [(said, STRONG), (f"{_GAP}q quits", PLAIN)]
    silent = monitor.silent_for
    if silent is None:
        return None
    why = f": {shown(monitor.why_silent, unicode=unicode)}" if monitor.why_silent else ""
    return [(f"The driver has not answered for {words.duration(silent)}{why}", BAD)]


def summary(
    state: RunState,
    cells: int,
    *,
    elapsed: float,
    rate: float | None,
    left: tuple[float, float] | None,
    is_over: bool = False,
    unicode: bool = True,
) -> list[Line]:
    """Four lines on a run: who it is, how far, how many tasks of which kind, how fast."""
    phase = PHASES.get(state.phase, shown(state.phase, unicode=unicode))
    if is_over:
        phase = PHASES[ENDED]
    elif state.phase == WORKING and not state.cylinders:
        phase = "waiting for hosts"
    room = cells - width(phase) - len(_GAP)
    name = shown(state.job, unicode=unicode)
    name = cut(name, room, _mark(unicode=unicode)) if room >= _NAME_LEAST else cut(name, cells, _mark(unicode=unicode))
    spread = " " * max(len(_GAP), cells - width(name) - width(phase))
    return [
        [(name, STRONG), (spread, PLAIN), (phase, PLAIN if state.phase == WORKING else WARNING)],
        _progress(state, cells, unicode=unicode),
        _counts(state),
        _speed(state, elapsed, rate, left),
    ]


def _progress(state: RunState, cells: int, *, unicode: bool) -> Line:
    if state.total is None:
        return [(f"{words.number(state.ended)} tasks done, and nobody knows how many there will be", PLAIN)]
    done = state.ended / state.total if state.total else 1.0
    done = max(0.0, min(1.0, done))
    of = f"{words.number(state.ended)} of {'' if state.total_is_exact else '~'}{words.number(state.total)} tasks"
    text = f" {int(100 * done):3} %   {of}"
    room = min(_BAR_MOST, cells - len(text))
    if room <= 2:  # noqa: PLR2004 - one, and a blank
        return [(text.strip(), PLAIN)]
    full, rest = words.bar(done, room, unicode=unicode)
    return [(full, GOOD), (rest, FAINT), (text, PLAIN)]


def _counts(state: RunState) -> Line:
    failed = f"failed {words.number(state.failed)}"
    line: Line = [
        (f"done {words.number(state.ended)}", PLAIN),
        (_GAP, PLAIN),
        (failed, BAD if state.failed else PLAIN),
        (f"{_GAP}running {words.number(state.active)}", PLAIN),
        (f"{_GAP}waiting {words.number(state.yet_to_start)}", PLAIN),
    ]
    for count, what in ((state.skipped, "earlier"), (state.interrupted, "interrupted"), (state.lost, "lost")):
        if count:
            line.append((f"{_GAP}{what} {words.number(count)}", PLAIN))
    return line


def _speed(state: RunState, elapsed: float, rate: float | None, left: tuple[float, float] | None) -> Line:
    parts = [
        f"{words.number(state.active)} of {words.number(state.cylinders)} places in use",
        words.rate(rate) if rate is not None else "",
        f"{words.duration(elapsed)} so far",
        f"{words.span(*left)} left" if left is not None else "",
    ]
    return [(_GAP.join(filter(None, parts)), PLAIN)]


def elapsed(state: RunState, now: float, *, is_over: bool = False) -> float:
    """Seconds since the run began, until `now` or its end; clocks of two hosts may differ."""
    return max(0.0, state.time - state.started, 0.0 if is_over or state.phase == ENDED else now - state.started)


# The table.


def columns_for(cells: int) -> tuple[int, list[Column]]:
    """Cells for the name, and the columns that a window of that width has room for."""
    kept = list(COLUMNS)
    while kept and cells - _width_of(kept) < _NAME_LEAST:
        kept.remove(min(kept, key=lambda column: column.rank))
    return max(0, min(_NAME_MOST, cells - _width_of(kept))), kept


def _width_of(columns: Iterable[Column]) -> int:
    return sum(column.cells + 1 for column in columns)


def heading(cells: int, *, sort: str = "", is_reversed: bool = False, unicode: bool = True) -> Line:
    """The line above the table; an arrow stands at the column that it is sorted by."""
    name_cells, columns = columns_for(cells)
    arrow = ("▲" if is_reversed else "▼") if unicode else ("^" if is_reversed else "v")

    def titled(title: str, sorts: Sequence[str], cells: int, *, right: bool) -> str:
        return fitted(f"{title}{arrow}" if sort in sorts else title, cells, right=right)

    text = titled("  context, host", ("number", "name") if sort == "name" else (), name_cells, right=False)
    for column in columns:
        text += " " + titled(column.title, (column.title,), column.cells, right=column.right)
    return [(fitted(text, cells), HEADING)]


def row_line(row: Row, cells: int, now: float, *, is_under_cursor: bool = False, unicode: bool = True) -> Line:
    """A line of the table."""
    name_cells, columns = columns_for(cells)
    mark = (">" if is_under_cursor else " ") + (" " if row.is_context else "   ")
    name = fitted(mark + shown(row.name, unicode=unicode), name_cells, _mark(unicode=unicode))
    line: Line = [(name, STRONG if row.is_context else PLAIN)]
    for column in columns:
        text = fitted(shown(column.text(row, now), unicode=unicode), column.cells, right=column.right)
        line.append((f" {text}", _style(row, column)))
    if is_under_cursor:
        return [(fitted("".join(text for text, _ in line), cells), CURSOR)]
    return line


def _style(row: Row, column: Column) -> str:
    if row.state == LEFT:
        return FAINT
    if column.title == "state":
        return _STATE_STYLES.get(row.state, PLAIN)
    return BAD if column.title == "failed" and row.failed else PLAIN


def _table(monitor: Monitor, layout: model.Layout, *, unicode: bool) -> list[Line]:
    lines: list[Line] = []
    if layout.heading:
        lines.append(heading(monitor.width, sort=monitor.sort, is_reversed=monitor.is_reversed, unicode=unicode))
    last = min(len(monitor.rows), monitor.top + layout.rows)
    for place in range(monitor.top, last):
        is_under_cursor = place == monitor.cursor
        row = monitor.rows[place]
        lines.append(row_line(row, monitor.width, monitor.time, is_under_cursor=is_under_cursor, unicode=unicode))
    if not monitor.rows and layout.rows:
        why = "nothing has that text in it" if monitor.filter else "no hosts yet"
        lines.append([(f"  {why}", FAINT)])
    return lines


def ago(then: float | None, now: float) -> str:
    """How long ago that was, in 5 cells: `now`, `12 s`, `3 min`; `-` for never."""
    if then is None:
        return "-"
    seconds = max(0, int(now - then))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s" if seconds > 1 else "now"


def _short(count: int, cells: int) -> str:
    """A count in no more cells than those: in thousands, millions and so on where it has to be."""
    text = words.number(count)
    if len(text) <= cells:
        return text
    text = str(count)
    for unit in ("", "k", "M", "G", "T"):
        if len(text) + len(unit) <= cells:
            return text + unit
        text = text[:-3] or "0"
    return "9" * (cells - 1) + "+"


# Details and help.


def _page(monitor: Monitor, height: int, *, unicode: bool) -> list[Line]:
    if monitor.page == model.HELP:
        listed = model.KEYS[monitor.scroll : monitor.scroll + height]
        return [[(f"  {keys:<18}", STRONG), (meaning, PLAIN)] for keys, meaning in listed]
    row = monitor.looking_at
    if row is None:
        return []
    facts = _facts(monitor, row)
    lines: list[Line] = []
    tasks = monitor.tasks or ()
    for place in range(monitor.scroll, min(monitor.scroll + height, len(facts) + len(tasks) + 1)):
        if place < len(facts):
            title, text = facts[place]
            lines.append([(f"  {title:<9}", FAINT), (shown(text, unicode=unicode), STRONG if not place else PLAIN)])
        elif place < len(facts) + len(tasks):
            lines.append(_task_line(tasks[place - len(facts)], monitor.time, unicode=unicode))
        elif monitor.more_tasks:
            lines.append([(f"    and {words.number(monitor.more_tasks)} more", FAINT)])
    return lines


def _task_line(task: RunningTask, now: float, *, unicode: bool) -> Line:
    again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
    return [
        (f"    {task.task_id:>7}  ", STRONG),
        (f"{words.duration(now - task.since):>12}{again}  ", PLAIN),
        (shown(task.command, unicode=unicode), PLAIN),
    ]


def _facts(monitor: Monitor, row: Row) -> list[tuple[str, str]]:
    """What there is to say of an engine or a context: as many lines as `model.FACTS`."""
    state = monitor.state
    engines = {engine.rank: engine for engine in state.engines} if state is not None else {}
    contexts = {context.rank: context for context in state.contexts} if state is not None else {}
    context = contexts.get(row.context_rank)
    found = _facts_of_context(row, context) if row.is_context else _facts_of_engine(row, engines.get(row.rank), context)
    found |= {
        "state": f"{row.title}: {row.state}",
        "places": f"{words.number(row.active)} of {words.number(row.cylinders)} in use",
        "failed": words.number(row.failed),
        "rate": words.rate(row.rate),
        "heard": "never" if row.heard is None else f"{words.duration(max(0.0, monitor.time - row.heard))} ago",
        "runs": _runs(monitor, row),
    }
    return [(title, found.get(title, "-")) for title in model.FACTS]


def _facts_of_engine(row: Row, engine: EngineState | None, context: ContextState | None) -> dict[str, str]:
    found = {"tasks": f"{words.number(row.assigned)} assigned, {words.number(row.finished)} finished"}
    if engine is not None:
        found["host"] = engine.node if engine.host in ("", engine.node) else f"{engine.node}, which is {engine.host}"
        found["process"] = str(engine.pid) if engine.pid else "-"
    if context is not None:
        found["context"] = f"{context.label} ({context.system})"
    return found


def _facts_of_context(row: Row, context: ContextState | None) -> dict[str, str]:
    found = {"tasks": f"{words.number(row.assigned)} assigned, {words.number(row.finished)} finished"}
    if context is not None:
        found |= {"host": context.host, "process": str(context.pid) if context.pid else "-"}
        count = len(context.engines)
        found["context"] = f"{context.system}, {words.number(count)} engine{'s' * (count != 1)}"
        if context.task_limit:
            found["tasks"] += f", {words.number(context.task_limit)} at most"
    return found


def _runs(monitor: Monitor, row: Row) -> str:
    if row.is_context:
        return f"{words.number(row.active)} tasks; Enter on an engine shows those"
    if not monitor.may_stop:
        return "the file for observers gives no right to see commands"
    if monitor.tasks is None:
        return "asking the driver" if not monitor.is_over else "-"
    if not monitor.tasks:
        return "nothing"
    return "task, since when, command"


# The footer.


def _footer(monitor: Monitor, *, unicode: bool) -> Line:
    if monitor.question is not None:
        return [(_question(monitor, unicode=unicode), WARNING)]
    if monitor.is_typing:
        return [("/", STRONG), (_end_of(monitor.filter, monitor.width - 2, unicode=unicode), PLAIN), ("_", CURSOR)]
    if monitor.message:
        return [(shown(monitor.message, unicode=unicode), WARNING)]
    return _hints(monitor, unicode=unicode)


def _question(monitor: Monitor, *, unicode: bool) -> str:
    assert monitor.question is not None  # noqa: S101 - asked only for one
    title = shown(monitor.question.title, unicode=unicode)
    answers = (
        "y when its tasks have ended, ! now (they run again elsewhere), n no",
        "y when its tasks have ended, ! now, n no",
        "y soft, ! now, n no",
        "y ! n",
    )
    for answer in answers:
        question = f"Stop {title}? {answer}"
        if width(question) <= monitor.width:
            return question
    short = answers[-2]
    room = monitor.width - len(f"Stop ? {short}")
    return f"Stop {cut(title, room, _mark(unicode=unicode))}? {short}" if room >= _NAME_LEAST else "y ! n ?"


def _end_of(text: str, cells: int, *, unicode: bool) -> str:
    """The end of a text that is being typed."""
    text = shown(text, unicode=unicode)
    while width(text) > max(0, cells):
        text = text[1:]
    return text


def _hints(monitor: Monitor, *, unicode: bool) -> Line:
    row = monitor.under_cursor
    stop = "C stop context" if row is not None and row.is_context else "E stop engine"
    if monitor.page == model.HELP:
        hints = ["Esc back", "q quit"]
    elif monitor.page == model.DETAILS:
        hints = ["Esc back", stop, "q quit", "h help"]
    else:
        hints = ["h help", "q quit", "Enter details", "s sort", "/ filter", stop]
    if monitor.page == model.TABLE and monitor.rows:
        last = min(len(monitor.rows), monitor.top + monitor.layout.rows)
        place = f"{monitor.top + 1}-{last} of {words.number(len(monitor.rows))}"
    else:
        place = ""
    if monitor.page == model.TABLE and monitor.filter:
        place = f'"{cut(shown(monitor.filter, unicode=unicode), 12, _mark(unicode=unicode))}" {place}'
    text = ""
    for hint in hints:
        longer = f"{text}{_GAP if text else ''}{hint}"
        if width(longer) > monitor.width - width(place) - len(_GAP) * bool(place):
            break
        text = longer
    return [(text, FAINT), (" " * (monitor.width - width(text) - width(place)), PLAIN), (place, FAINT)]


def _mark(*, unicode: bool) -> str:
    """What stands where a text is cut."""
    return "…" if unicode else "~"


def plain(line: Line) -> str:
    """The text of a line."""
    return "".join(text for text, _ in line).rstrip()
