"""A real Slurm for tests: a login host and a few nodes made of this machine, and an own cluster on them."""

from tests.slurm.cluster import Cluster, ClusterError, Node
from tests.slurm.requirements import why_no_cluster

__all__ = ["Cluster", "ClusterError", "Node", "why_no_cluster"]
