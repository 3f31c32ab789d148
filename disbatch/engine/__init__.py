"""The engine: the process on a node that runs tasks in its cylinders."""
