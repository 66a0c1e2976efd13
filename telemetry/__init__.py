"""What every service says about itself: logs now, metrics and traces later.

Knows nothing of gRPC, Redis or models; every part may import it.
"""
