"""How options are declared, and how arguments become their values, and values arguments again.

Pure. It must not know any option by its name, nor what is done with a value.
"""

from __future__ import annotations

from disbatch.records import Declaration, fields, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


@record
class Option(Declaration):
    """How an option is declared: what stands for its field in an options class, see `option`."""

    flags: tuple[str, ...]
    group: str
    help: str
    default: Any
    metavar: str | tuple[str, ...] | None
    convert: Callable[[str], Any] | None
    choices: Sequence[str] | None
    many: bool
    alone: Any
    words: int
    hidden: bool
    path: bool


def option(
    *flags: str,
    group: str,
    help: str,  # noqa: A002 - what argparse calls it
    default: Any = None,  # noqa: ANN401 - each field declares its type
    metavar: str | tuple[str, ...] | None = None,
    convert: Callable[[str], Any] | None = None,
    choices: Sequence[str] | None = None,
    many: bool = False,
    alone: Any = None,  # noqa: ANN401 - as default
    words: int = 1,
    hidden: bool = False,
    path: bool = False,
) -> Any:  # noqa: ANN401 - each field declares its type
    """Declare a field of an options class as an option; without flags it is a positional argument.

    `many`: a tuple that grows with each use, or each positional argument. `words`: a tuple of so many words, empty by
    default. A default of False makes a switch. `alone`: what an option means that is given without a value. `group`:
    its heading in the help. `path`: a shell completes it with names of files. What is `hidden` is not in the help, but
    in the reference, if it has a text.
    """
    of_tuple = many or words > 1
    return Option(
        flags, group, help, () if of_tuple else default, metavar, convert, choices, many, alone, words, hidden, path
    )


def declared_by(options: object) -> dict[str, Option]:
    """Return how each field is declared of an options class, or of an instance of one, in the order of the fields."""
    cls = options if isinstance(options, type) else type(options)
    return {name: getattr(cls, name) for name in fields(cls)}


@record
class Role:
    """What one kind of process is told by its arguments: a record whose fields are options, and how it is presented.

    `groups`: the headings of the help, in their order; `--help` stands under the last. `version`: what `--version`
    prints, where there is that option.
    """

    options: type[Any]
    description: str
    groups: tuple[str, ...]
    usage: str = "%(prog)s [option ...]"
    epilog: str | None = None
    version: str | None = None


def declarations(role: Role) -> list[tuple[str, Option]]:
    """Fields of a role's options in the order of the help: group by group, in each by their long names."""

    def order(field: tuple[str, Option]) -> tuple[int, str]:
        declared = field[1]
        long_name = declared.flags[-1].lstrip("-").lower() if declared.flags else ""
        return role.groups.index(declared.group), long_name

    return sorted(declared_by(role.options).items(), key=order)


def parse(role: Role, arguments: Sequence[str], program: str) -> Any:  # noqa: ANN401 - the role's options
    """Options of a role from its arguments; raises `UsageError` with one line on a user's mistake."""
    try:
        return role.options(**_plain_values(declared_by(role.options), arguments))
    except (KeyError, ValueError):
        from disbatch import parser  # noqa: PLC0415 - it takes 6 ms, which most command lines need not wait for

        return parser.parse(role, arguments, program)


def _plain_values(declared: dict[str, Option], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of arguments that hold no mistake and are written in a usual way; raises KeyError, ValueError.

    Usual are `-e`, `-c 2`, `--label A`, `--label=A`, and positional arguments that do not begin with a dash.
    """
    names = {flag: name for name, option in declared.items() for flag in option.flags or ("",)}
    values: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            name = names[""]
            if declared[name].many:
                values[name] = (*values.get(name, ()), word)
            else:
                values[names.pop("")] = word
            continue
        flag, joined, text = word.partition("=")
        name = names[flag]
        option = declared[name]
        is_switch = option.default is False
        is_usual = flag.startswith("--") and not is_switch if joined else is_switch or option.alone is None
        if option.words > 1 or not is_usual:
            raise ValueError(word)
        value = True if is_switch else _plain_value(option, text if joined else next(words, "-"))
        values[name] = (*values.get(name, ()), value) if option.many else value
    return values


def _plain_value(option: Option, text: str) -> Any:  # noqa: ANN401 - each field declares its type
    value = text if option.convert is None else option.convert(text)
    if text.startswith("-") or (option.choices is not None and value not in option.choices):
        raise ValueError(text)
    return value


def arguments_for(options: object, names: Sequence[str] | None = None) -> list[str]:
    """Arguments that make a parser of a class with the same fields read these values; `names`: of these fields alone.

    Values at their defaults are left out, so what the reader inherits is not overridden by them.
    """
    result: list[str] = []
    for name, declared in declared_by(options).items():
        value = getattr(options, name)
        if (names is not None and name not in names) or value == declared.default:
            continue
        flag = declared.flags[-1]
        if value is True or (value == declared.alone and value is not None):
            result.append(flag)
            continue
        if declared.words > 1:
            result += [flag, *value]
            continue
        elements = value if declared.many else (value,)
        # One word each, so that a value that begins with a dash is not taken for an option.
        result.extend(f"{flag}={_as_text(element)}" for element in elements)
    return result


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(node) for node in value)
    return str(value)
