"""From declared options to a parser and its help, for which `argparse` is imported.

Pure. It must not know any option by its name, nor what is done with a value.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from disbatch.arguments import declarations, declared_by
from disbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from disbatch.arguments import Option, Role


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, raised instead of printed."""

    def error(self, message: str) -> NoReturn:
        # Some of argparse's messages hold the user's words as they are, line ends included.
        shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
        raise UsageError(shown, f"see {self.prog} --help")


def parser(
    role: Role, program: str, *, complete_path: Callable[..., Sequence[str]] | None = None
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
    for name, declared in declarations(role):
        action = _add_argument(groups[declared.group], name, declared)
        if complete_path is not None and declared.path:
            action.completer = complete_path  # type: ignore[attr-defined] # where argcomplete looks for it
    return result


def _add_argument(target: argparse._ArgumentGroup, name: str, declared: Option) -> argparse.Action:
    shown = argparse.SUPPRESS if declared.hidden else declared.help
    if not declared.flags:
        # That it is there is for `parse` to see to: argparse would not tell of an unknown option before it has come.
        number = "*" if declared.many else None
        action = target.add_argument(name, metavar=declared.metavar, help=shown, nargs=number)
        action.required = False
        return action
    arguments: dict[str, Any] = {"dest": name, "default": declared.default, "help": shown}
    if declared.default is False:
        arguments["action"] = "store_true"
    else:
        arguments.update(metavar=declared.metavar, choices=declared.choices)
        if declared.convert is not None:
            arguments["type"] = _argument_type(declared.convert)
        if declared.alone is not None:
            arguments.update(nargs="?", const=declared.alone)
        if declared.words > 1:
            arguments["nargs"] = declared.words
        if declared.many:
            arguments.update(action="append", default=None)
    return target.add_argument(*declared.flags, **arguments)


def _argument_type(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:  # noqa: ANN401 - each field declares its type
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def parse(role: Role, arguments: Sequence[str], program: str) -> Any:  # noqa: ANN401 - the role's options
    """Options of a role, as `arguments.parse` gives them."""
    reader = parser(role, program)
    options = declared_by(role.options)
    several = any(declared.many and not declared.flags for declared in options.values())
    # Options may stand between several arguments, too; what lets them does not know what a `--` is for.
    read = reader.parse_intermixed_args if several and "--" not in arguments else reader.parse_args
    namespace = vars(read(arguments))
    values: dict[str, Any] = {}
    for name, declared in options.items():
        given = namespace[name]
        if declared.flags and (given == [] or (declared.many and [] in (given or ()))):
            # What argparse makes of it before Python 3.13.
            reader.error(f"argument {'/'.join(declared.flags)}: '--' cannot be its value")
        values[name] = tuple(given or ()) if declared.default == () else given
    return role.options(**values)
