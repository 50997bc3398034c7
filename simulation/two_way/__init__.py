"""Sync in both directions under the seeded scheduler: the real engine over the in-memory ports, two or three remote
systems of different kinds, people who edit everywhere, and a model of what they did that says what may come of it.
"""
