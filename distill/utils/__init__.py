"""Errors, files, signals, the command line: what every other package stands on."""
