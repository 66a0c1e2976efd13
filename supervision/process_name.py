"""What a process is called, in Redis, in replies and in logs."""

import os
import socket
from uuid import uuid4


def process_name() -> str:
    """Return a name that no process had before."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
