"""Engines that run on the host's own processor: the golden model behind the engine contract, and the fast one."""
