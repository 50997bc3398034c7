"""Plans: the same decisions as a pull's or a push's, told and not made; and what carries one out.

`overlay.py` lets the code that applies write where nobody sees it, `deciding.py` tells what it wrote, `decisions.py` says
how that reads, `figures.py` adds it up. `plan.py` and `pushes.py` are the runs. `applying.py` begins what carries their plans
out, `carrying.py` and `sending.py` do it, and `outcomes.py` says of each decision what became of it.
"""
