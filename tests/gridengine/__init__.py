"""A real Grid Engine for tests: a login host and two nodes made of this machine, and an own cell on them."""

from tests.gridengine.cluster import GridEngineCell, GridEngineError
from tests.gridengine.requirements import why_no_grid_engine

__all__ = ["GridEngineCell", "GridEngineError", "why_no_grid_engine"]
