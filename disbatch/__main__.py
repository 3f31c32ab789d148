"""`python -m disbatch`, and what the processes of a run start one another by: this file's path."""

import sys

if __package__ in (None, ""):
    # Started by path: Python has put this folder first, where `tasks.py` and the like would be modules of everybody's.
    import os.path

    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from disbatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
