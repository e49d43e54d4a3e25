"""Amaranth gateware of the Sterna accelerator; :class:`sterna_hw.accelerator.Accelerator` is the top."""
