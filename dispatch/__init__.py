"""Redis-backed job dispatch: the only code that knows Redis.

Read `keys.py` first (what lies in Redis), then `lua/` (what happens to it),
then the two typed doors: `job_store.py` for front-ends, `work_queue.py` for
workers.
"""
