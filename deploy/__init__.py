"""Runs the services: on this machine or in Docker. No service imports this."""
