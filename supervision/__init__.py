"""Several processes of one service: started, replaced when they end, stopped together.

`supervisor.py` is the parent's side, `lifeline.py` the child's; `memory.py` is for either.
"""
