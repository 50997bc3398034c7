"""The two ways in which a demo ends before its time."""


class Trouble(Exception):
    """One clear sentence for the person at the terminal, with what to do about it."""


class Stopped(Exception):
    """Ctrl-C, SIGTERM or a closed terminal."""
