"""The driver: the process that the user starts, which decides what runs where and writes down how it went."""
