"""`python -m disbatch`, and what the processes of a run start one another by: this file's path."""

import sys

if __package__ in (None, ""):
    import os.path

    # Started by path: Python has put this folder first, where `tasks.py` and the like would be modules of everybody's.
    # Where it was told not to (-P, PYTHONSAFEPATH, and -I of every version), the first entry is the user's.
    replaced = 0 if getattr(sys.flags, "safe_path", sys.flags.isolated) else 1
    sys.path[:replaced] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

if __name__ == "__main__":
    try:
        from disbatch.cli import main

        status = main()
    except KeyboardInterrupt:  # while the above was being imported; `main` does the same
        status = 130
    sys.exit(status)
