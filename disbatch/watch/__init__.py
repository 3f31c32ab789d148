"""What all share that look at a run from outside: the terminal's progress, the monitor, the web page."""
