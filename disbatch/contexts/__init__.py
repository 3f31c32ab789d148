"""Contexts: sets of resources, and the process that starts and watches the engines on them."""
