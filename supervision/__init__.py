"""Several processes of one service: started, replaced when they end, stopped together.

`supervisor.py` is the parent's side, `lifeline.py` the child's; `early_end.py`, `memory.py` and
`stop_requests.py` are for either.
"""
