"""Run the command line with `python -m`."""

from .app import main

main()
