"""Chooses the engine of a model by trying all that are installed.

auto.py ──▶ store.py       what was measured before
    │
    ├─────▶ measuring.py ──▶ trial.py ──▶ trial_process.py: one engine, in processes of its own
    │
    └─────▶ choice.py      which row of the table it shall be
"""
