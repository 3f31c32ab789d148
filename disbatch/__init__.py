"""disbatch: runs a file of bash commands over whatever computers its user has.

This file holds the version and nothing else, so that every process of a run pays nothing for importing it.
"""

__version__ = "0.1.0"
