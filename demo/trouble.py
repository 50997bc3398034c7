"""The ways in which a demo ends before its time."""


class Trouble(Exception):
    """One clear sentence for the person at the terminal, with what to do about it."""


class Missing(Trouble):
    """What was asked for can't be had on this machine; nothing is wrong with the rest."""


class Stopped(Exception):
    """Ctrl-C, SIGTERM or a closed terminal."""
