"""The command line, `despacho`. Loads gRPC and rich only where they are used."""

from .app import main

__all__ = ["main"]
