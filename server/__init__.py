"""The gRPC front-end: services, validation, relay, status mapping, health.

Read `service.py` first, then `relay.py`.
"""

import os

# gRPC reads it while it is imported. What it writes to standard error by itself has a form of its
# own among our lines, and by default it writes one for each stranger that fails to shake hands.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
