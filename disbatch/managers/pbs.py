"""A job of PBS: OpenPBS, PBS Professional or Torque.

Pure. Not yet tried on a live system. The facts are from the manual pages pbsdsh(1B), qsub(1B) and pbs_resources(7B) of
OpenPBS, and from pbsdsh(1B) and "Exported batch environment variables" of Torque's documentation:

- The node file, `PBS_NODEFILE`, is on the first node alone. Torque writes a line for each core (`ppn`) of each node,
  OpenPBS one for each process that the job asked for (`mpiprocs`), which is one for each chunk unless it says more.
- Torque tells `ppn` in `PBS_NUM_PPN`; OpenPBS tells how many cores a process of the first chunk has in `NCPUS`.
- `pbsdsh -n INDEX -- COMMAND` starts it on the node of that line, from 0. It takes arguments as they are. What the
  command prints goes to the job's output. pbsdsh passes TERM on and ends at once, and ends with 0 however the command
  has ended.
"""

from __future__ import annotations

from disbatch.managers.base import Start, for_script
from disbatch.managers.job import Job, number, slots_of_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from disbatch.managers.base import EngineCall


class Pbs(Job):
    """See `Job`."""

    system = "PBS"
    telltale = "PBS_JOBID"
    launcher = "pbsdsh"

    def _number(self) -> str:
        return self._wanted("PBS_JOBID").partition(".")[0]

    def _slots(self) -> list[tuple[str, int]]:
        self._lines = [name for name, _ in slots_of_lines(self._file("PBS_NODEFILE"))]
        each = cores_of_a_line(self._lines, self._environment)
        return [(name, each) for name in self._lines]

    def _launch(self, node: str, engine: EngineCall) -> Start:
        command = (self.launcher, "-n", str(self._lines.index(node)), "--", *engine.elsewhere())
        return Start(command, for_script(self._environment), status_tells=False)


def cores_of_a_line(lines: list[str], environment: Mapping[str, str]) -> int:
    """How many cores a line of the node file stands for: 1, unless it names each node only once."""
    if len(set(lines)) < len(lines):
        return 1
    for name in ("PBS_NUM_PPN", "NCPUS"):
        if environment.get(name):
            return number(environment[name], f"cores ({name})")
    return 1
