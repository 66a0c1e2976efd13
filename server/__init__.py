"""The gRPC front-end: services, validation, relay, status mapping, health.

Read `service.py` first, then `relay.py`.
"""
