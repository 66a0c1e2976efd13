"""What every service says about itself: logs, metrics, traces.

Knows nothing of gRPC, Redis or models; every part may import it.
"""
