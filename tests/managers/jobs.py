"""Environments and node files of jobs, as the documentation of PBS, LSF and Grid Engine describes them.

No live system was asked. The sources are: for OpenPBS its manual pages qsub(1B), pbsdsh(1B) and pbs_resources(7B); for
Torque "Exported batch environment variables" in its administrator's guide; for LSF "Environment variables set for job
execution" in IBM's configuration reference; for Grid Engine sge_pe(5) and sge_submit(1) of Son of Grid Engine 8.1.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class DocumentedJob(NamedTuple):
    """A job: variables of its script, and the file that one of them names."""

    system: str
    variables: dict[str, str]
    file_variable: str
    lines: tuple[str, ...]
    laid_out: tuple[tuple[str, int], ...]
    """Nodes and cores that are to come of it."""
    label: str

    @property
    def file(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    def environment(self, file: str | Path) -> dict[str, str]:
        """Its variables, with the file there."""
        return {**self.variables, **({self.file_variable: str(file)} if self.file_variable else {})}


def _pbs(job: str, **variables: str) -> dict[str, str]:
    return {"PBS_JOBID": job, "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_QUEUE": "workq", "PBS_JOBNAME": "run", **variables}


def _lsf(**variables: str) -> dict[str, str]:
    return {"LSB_JOBID": "1234", "LSB_JOBINDEX": "0", "LSB_QUEUE": "normal", "LSB_BATCH_JID": "1234", **variables}


def _sge(**variables: str) -> dict[str, str]:
    return {
        "JOB_ID": "7",
        "SGE_TASK_ID": "undefined",
        "QUEUE": "all.q",
        "HOSTNAME": "n1",
        "SGE_ROOT": "/g",
        **variables,
    }


JOBS: dict[str, DocumentedJob] = {
    # One line for each process, one process for each chunk; NCPUS is what one of the first chunk may use.
    "qsub -l select=2:ncpus=4": DocumentedJob(
        "pbs",
        _pbs("12.head", NCPUS="4", OMP_NUM_THREADS="4"),
        "PBS_NODEFILE",
        ("n1", "n2"),
        (("n1", 4), ("n2", 4)),
        "J12",
    ),
    "qsub -l select=2:ncpus=2:mpiprocs=2": DocumentedJob(
        *("pbs", _pbs("13.head.example.org", NCPUS="2", OMP_NUM_THREADS="2"), "PBS_NODEFILE"),
        *(("n1", "n1", "n2", "n2"), (("n1", 2), ("n2", 2)), "J13"),
    ),
    "qsub -l select=1:ncpus=1 -J 0-9": DocumentedJob(
        "pbs", _pbs("14[3].head", PBS_ARRAY_INDEX="3", NCPUS="1"), "PBS_NODEFILE", ("n1",), (("n1", 1),), "J14[3]"
    ),
    # Torque: one line for each core.
    "qsub -l nodes=1:ppn=3+1:ppn=2": DocumentedJob(
        *("pbs", _pbs("15.head", PBS_NUM_NODES="1", PBS_NUM_PPN="3", PBS_NP="5"), "PBS_NODEFILE"),
        *(("n1", "n1", "n1", "n2", "n2"), (("n1", 3), ("n2", 2)), "J15"),
    ),
    "qsub -l nodes=1:ppn=1": DocumentedJob(
        *("pbs", _pbs("16.head", PBS_NUM_NODES="1", PBS_NUM_PPN="1", PBS_NP="1"), "PBS_NODEFILE"),
        *(("n1",), (("n1", 1),), "J16"),
    ),
    "bsub -n 6": DocumentedJob(
        *("lsf", _lsf(LSB_MCPU_HOSTS="n1 4 n2 2", LSB_HOSTS="n1 n1 n1 n1 n2 n2"), "LSB_DJOB_HOSTFILE"),
        *(("n1", "n1", "n1", "n1", "n2", "n2"), (("n1", 4), ("n2", 2)), "J1234"),
    ),
    "bsub -n 3, the host file alone": DocumentedJob(
        "lsf", _lsf(), "LSB_DJOB_HOSTFILE", ("n1", "n1", "n2"), (("n1", 2), ("n2", 1)), "J1234"
    ),
    "bsub -J 'run[1-9]'": DocumentedJob(
        "lsf", _lsf(LSB_JOBINDEX="9", LSB_MCPU_HOSTS="n1 1 "), "", (), (("n1", 1),), "J1234[9]"
    ),
    "qsub -pe mpi 3": DocumentedJob(
        *("sge", _sge(NSLOTS="3", NHOSTS="2", NQUEUES="2", PE="mpi"), "PE_HOSTFILE"),
        *(("n1 2 all.q@n1 UNDEFINED", "n2 1 all.q@n2 UNDEFINED"), (("n1", 2), ("n2", 1)), "J7"),
    ),
    "qsub -pe mpi 4 -t 1-9, in two queues, bound to cores": DocumentedJob(
        *("sge", _sge(NSLOTS="4", NHOSTS="2", NQUEUES="3", PE="mpi", SGE_TASK_ID="5"), "PE_HOSTFILE"),
        *(("n1 2 all.q@n1 0,0:0,1", "n2 1 all.q@n2 0,0", "n1 1 more.q@n1 0,2"), (("n1", 3), ("n2", 1)), "J7.5"),
    ),
    "qsub": DocumentedJob("sge", _sge(NSLOTS="1", NHOSTS="1", NQUEUES="1"), "", (), (("n1", 1),), "J7"),
}
"""By the command that submits such a job."""
