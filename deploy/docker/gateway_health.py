"""Health check of the gateway's container: exit code 0 if it answers.

Runs inside the image, next to the gateway.
"""

import os
import sys
import urllib.request

TIMEOUT_S = 3


def main() -> int:
    """Ask the gateway of this container; return the exit code."""
    port = os.environ.get("GATEWAY_ADDRESS", ":8080").rpartition(":")[2]
    # No proxy of the environment: it is in this container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT_S):
            return 0
    except OSError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
