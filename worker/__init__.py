"""The model worker: claim, decode, batch, predict, complete.

Read `loop.py` first.
"""
