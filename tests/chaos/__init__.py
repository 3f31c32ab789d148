"""Runs under random failures: what must hold whatever happens, held against what has happened.

`schedule` makes of a seed what a run is to do and what is to happen to it; `runner` has it happen, on hosts made of
this machine; tasks (`attempt`) write down their own lives; `check` says what of it must not be.
"""
