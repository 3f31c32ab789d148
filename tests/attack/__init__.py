"""Programs that attack a key-value store: see `strangers`."""
