"""Netlists of ECP5 primitives as Verilog that can be simulated."""

from sterna_sim.netlist.model import netlist_verilog

__all__ = ["netlist_verilog"]
