"""What failed in a run, and what of: failures that have one cause told as one."""
