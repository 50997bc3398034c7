"""The steps of a pull: who may begin, reading, what is saved on the way, and how a run ends."""
