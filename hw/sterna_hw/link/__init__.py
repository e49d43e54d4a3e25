"""The host link: bytes from a cable become reads and writes of memory and registers (``sterna.spec.link``)."""
