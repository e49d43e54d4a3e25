"""What synthesis makes of the RTL, or is told of it, as Verilog that can be simulated."""

from sterna_sim.netlist.collisions import colliding_verilog
from sterna_sim.netlist.model import netlist_verilog

__all__ = ["colliding_verilog", "netlist_verilog"]
