"""From declared options to a parser and its help, and from values back to the arguments that make a parser read them.

Pure. It must not know any option by its name, nor what is done with a value.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from disbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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

    `many`: a tuple that grows with each use. `words`: a tuple of so many words, empty by default. A default of False
    makes a switch. `alone`: what an option means that is given without a value. `group`: its heading in the help.
    `path`: a shell completes it with names of files. What is `hidden` is not in the help, but in the reference, if it
    has a text.
    """
    metadata = {
        "flags": flags,
        "help": argparse.SUPPRESS if hidden else help,
        "reference": help,
        "group": group,
        "path": path,
        "metavar": metavar,
        "convert": convert,
        "choices": choices,
        "many": many,
        "alone": alone,
        "words": words,
    }
    return field(default=() if many or words > 1 else default, metadata=metadata)


Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Role(Generic[Options]):
    """What one kind of process is told by its arguments: a dataclass whose fields are options, and how it is presented.

    `groups`: the headings of the help, in their order; `--help` stands under the last. `version`: what `--version`
    prints, where there is that option.
    """

    options: type[Options]
    description: str
    groups: tuple[str, ...]
    usage: str = "%(prog)s [option ...]"
    epilog: str | None = None
    version: str | None = None


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, raised instead of printed."""

    def error(self, message: str) -> NoReturn:
        # Some of argparse's messages hold the user's words as they are, line ends included.
        shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
        raise UsageError(shown, f"see {self.prog} --help")


def parser(
    role: Role[Any], program: str, *, complete_path: Callable[..., Sequence[str]] | None = None
) -> argparse.ArgumentParser:
    """Build the parser of a role; `complete_path` is what argcomplete is to complete names of files with."""
    result = _Parser(
        prog=program,
        usage=role.usage,
        description=role.description,
        epilog=role.epilog,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {title: result.add_argument_group(title) for title in role.groups}
    last = groups[role.groups[-1]]
    last.add_argument("-h", "--help", action="help", help="print this help")
    if role.version is not None:
        last.add_argument("--version", action="version", version=role.version, help="print the version")
    for declared in declarations(role):
        metadata = dict(declared.metadata)
        action = _add_argument(groups[metadata["group"]], declared.name, declared.default, metadata)
        if complete_path is not None and metadata["path"]:
            action.completer = complete_path  # type: ignore[attr-defined] # where argcomplete looks for it
    return result


def declarations(role: Role[Any]) -> list[Any]:
    """Fields of a role's options in the order of the help: group by group, in each by their long names."""

    def order(declared: Any) -> tuple[int, str]:  # noqa: ANN401 - a dataclasses.Field of any type
        flags = declared.metadata["flags"]
        return role.groups.index(declared.metadata["group"]), str(flags[-1]).lstrip("-").lower() if flags else ""

    return sorted(fields(role.options), key=order)


def _add_argument(
    target: argparse._ArgumentGroup, name: str, default: object, declared: dict[str, Any]
) -> argparse.Action:
    if not declared["flags"]:
        # That it is there is for `parse` to see to: argparse would not tell of an unknown option before it has come.
        action = target.add_argument(name, metavar=declared["metavar"], help=declared["help"])
        action.required = False
        return action
    arguments: dict[str, Any] = {"dest": name, "default": default, "help": declared["help"]}
    if default is False:
        arguments["action"] = "store_true"
    else:
        arguments.update(metavar=declared["metavar"], choices=declared["choices"])
        if declared["convert"] is not None:
            arguments["type"] = _argument_type(declared["convert"])
        if declared["alone"] is not None:
            arguments.update(nargs="?", const=declared["alone"])
        if declared["words"] > 1:
            arguments["nargs"] = declared["words"]
        if declared["many"]:
            arguments.update(action="append", default=None)
    return target.add_argument(*declared["flags"], **arguments)


def _argument_type(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:  # noqa: ANN401 - each field declares its type
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def parse(role: Role[Options], arguments: Sequence[str], program: str) -> Options:
    """Options of a role from its arguments; raises `UsageError` with one line on a user's mistake."""
    reader = parser(role, program)
    namespace = vars(reader.parse_args(arguments))
    declarations_of_role = fields(role.options)  # type: ignore[arg-type] # a dataclass
    for declared in declarations_of_role:
        given = namespace[declared.name]
        if given == [] or (declared.metadata["many"] and [] in (given or ())):
            # What argparse makes of it before Python 3.13.
            reader.error(f"argument {'/'.join(declared.metadata['flags'])}: '--' cannot be its value")
    values: dict[str, Any] = {
        declared.name: tuple(namespace[declared.name] or ()) if declared.default == () else namespace[declared.name]
        for declared in declarations_of_role
    }
    return role.options(**values)


def arguments_for(options: object, names: Sequence[str] | None = None) -> list[str]:
    """Arguments that make a parser of a class with the same fields read these values; `names`: of these fields alone.

    Values at their defaults are left out, so what the reader inherits is not overridden by them.
    """
    result: list[str] = []
    for declared in fields(options):  # type: ignore[arg-type] # an instance of a dataclass
        value = getattr(options, declared.name)
        if (names is not None and declared.name not in names) or value == declared.default:
            continue
        flags = declared.metadata["flags"]
        if value is True or (value == declared.metadata["alone"] and value is not None):
            result.append(flags[-1])
            continue
        if declared.metadata["words"] > 1:
            result += [flags[-1], *value]
            continue
        elements = value if declared.metadata["many"] else (value,)
        # One word each, so that a value that begins with a dash is not taken for an option.
        result.extend(f"{flags[-1]}={_as_text(element)}" for element in elements)
    return result


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{node.host}:{node.cores}" for node in value)
    return str(value)
