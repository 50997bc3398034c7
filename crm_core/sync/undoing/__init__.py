"""Undoing what a run did to the records: `deciding.py` says what of it can be taken back, `planning.py` plans that over all
records of a run, `carrying.py` carries such a plan out.
"""
