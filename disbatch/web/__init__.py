"""The web page of a run: a process of its own that watches the run and serves what it sees to browsers."""
