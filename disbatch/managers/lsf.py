"""A job of LSF.

Pure. Not yet tried on a live system. The facts are from "Environment variables set for job execution" and the page of
blaunch in IBM's documentation of Spectrum LSF 10.1:

- `LSB_MCPU_HOSTS` has the nodes and the slots on each in turn: `hostA 4 hostB 2`. The file `LSB_DJOB_HOSTFILE` has a
  line with the node's name for each slot. The script of a job runs on the first node.
- The elements of a job array have one `LSB_JOBID` and each a `LSB_JOBINDEX`, which is 0 in any other job.
- `blaunch -z NODE COMMAND` starts it on that node and ends as it does. As rsh and ssh do, it has a shell read the
  command unless it is told `-no-shell`.
"""

from __future__ import annotations

from disbatch.errors import ResourceError
from disbatch.managers.base import Start, for_script
from disbatch.managers.job import Job, guarded, node_name, number, slots_of_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.managers.base import EngineCall


class Lsf(Job):
    """See `Job`."""

    system = "LSF"
    telltale = "LSB_JOBID"
    launcher = "blaunch"

    def _number(self) -> str:
        index = self._environment.get("LSB_JOBINDEX", "")
        return self._wanted("LSB_JOBID") + (f"[{index}]" if index.strip("0") else "")

    def _slots(self) -> list[tuple[str, int]]:
        if self._environment.get("LSB_DJOB_HOSTFILE") and not self._environment.get("LSB_MCPU_HOSTS"):
            return slots_of_lines(self._file("LSB_DJOB_HOSTFILE"))
        return slots_of_pairs(self._wanted("LSB_MCPU_HOSTS"))

    def _launch(self, node: str, engine: EngineCall) -> Start:
        return Start((self.launcher, "-z", node, guarded(engine)), for_script(self._environment), status_tells=False)


def slots_of_pairs(text: str) -> list[tuple[str, int]]:
    """Nodes and slots of a list such as `hostA 4 hostB 2`; raises `ResourceError`."""
    words = text.split()
    if len(words) % 2:
        raise ResourceError(f"{text!r} is no list of nodes and slots of LSF's")
    return [(node_name(name), number(slots, "slots")) for name, slots in zip(words[::2], words[1::2], strict=True)]
