"""Engines that run a model, and the connections to devices."""
