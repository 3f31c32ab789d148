"""A job of Grid Engine: Son of Grid Engine, Univa's, Altair's, and what they come from.

Pure. The facts are from the manual pages sge_pe(5) and sge_submit(1) of Son of Grid Engine 8.1.9, and from jobs of it:

- A job in a parallel environment finds a file at `PE_HOSTFILE` with a line for each queue on each node: name, slots,
  queue, and a binding to cores or UNDEFINED. Any other job has one slot, on the node that `HOSTNAME` names.
- `SGE_TASK_ID` is `undefined` outside of arrays.
- `qrsh -inherit NODE COMMAND` starts it on a node of the job and ends as it does. It joins its arguments with blanks,
  for a shell to split them again. `-V` gives the command the environment of qrsh, by a file that anybody may read.
- When a signal ends the command, or qrsh itself, the whole job is ended some seconds later.
"""

from __future__ import annotations

from disbatch.errors import ResourceError
from disbatch.managers.base import Start, for_script
from disbatch.managers.job import Job, guarded, node_name, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.managers.base import EngineCall

NO_ARRAY = "undefined"


class GridEngine(Job):
    """See `Job`."""

    system = "SGE"
    telltale = "SGE_TASK_ID"
    launcher = "qrsh"

    def _number(self) -> str:
        task = self._wanted("SGE_TASK_ID")
        return self._wanted("JOB_ID") + ("" if task == NO_ARRAY else f".{task}")

    def _slots(self) -> list[tuple[str, int]]:
        if self._environment.get("PE_HOSTFILE"):
            return slots_of_queues(self._file("PE_HOSTFILE"))
        return [(node_name(self._wanted("HOSTNAME")), 1)]

    def _launch(self, node: str, engine: EngineCall) -> Start:
        # Unguarded, a signal that ends an engine would end the whole job.
        command = (self.launcher, "-inherit", "-V", node, guarded(engine))
        return Start(command, for_script(self._environment), status_tells=False)


def slots_of_queues(text: str) -> list[tuple[str, int]]:
    """Nodes and slots of lines such as `n1 2 all.q@n1 UNDEFINED`; raises `ResourceError`."""
    result = []
    for line in filter(str.strip, text.splitlines()):
        words = line.split()
        if len(words) < 2:  # noqa: PLR2004 - name and slots
            raise ResourceError(f"{line!r} is no line of a host file of Grid Engine's")
        result.append((node_name(words[0]), number(words[1], "slots")))
    return result
