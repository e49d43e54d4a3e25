"""The host's side of the link to a board: frames, requests, the transport, and the start of its DRAM (docs/link.md)."""
