"""Boards: memory controllers, top levels and the build flow."""
