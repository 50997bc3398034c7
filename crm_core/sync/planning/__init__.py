"""Plans: the same decisions as a pull's or a push's, told and not made; and what carries one out.

`overlay.py` lets the code that applies write where nobody sees it, `deciding.py` tells what it wrote, `plan.py` and
`pushes.py` are the runs, `carrying.py` and `sending.py` what carries their plans out.
"""
