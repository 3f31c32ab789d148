"""How far a run is, on the terminal that runs it."""
