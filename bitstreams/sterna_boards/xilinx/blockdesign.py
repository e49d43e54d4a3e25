"""Tcl for Vivado: a project with the block design around the accelerator, from synthesis to the bitstream.

Written from the vendor's documentation of the IP (PG201 processing system, PG195 XDMA, PG276 HBM); nobody has run it
in Vivado yet.
"""

from __future__ import annotations

from sterna_boards.xilinx.pcie import card_of, pcie
from sterna_boards.xilinx.targets import REGISTER_WINDOW, XilinxTarget
from sterna_boards.xilinx.top import CORE, WRAPPER

DESIGN = "system"
REGISTER_BASE = {"zynq": 0xA000_0000, "pcie": 0}
PROCESSOR_PORTS = ("S_AXI_GP2", "S_AXI_GP3", "S_AXI_GP4", "S_AXI_GP5")  # S_AXI_HP0_FPD to S_AXI_HP3_FPD


def project_tcl(target: XilinxTarget) -> str:
    """The script of the whole build; run it in the folder that it was emitted into."""
    shell = {"zynq": _zynq, "pcie": pcie}[target.shell](target)
    return f"""\
# {target.summary}.
# vivado -mode batch -source build.tcl
create_project -force {target.name} vivado -part {target.part}
set_property board_part {target.board_part} [current_project]
add_files [list {CORE}.v {WRAPPER}.v]
add_files -fileset constrs_1 constraints.xdc
update_compile_order -fileset sources_1
create_bd_design {DESIGN}
create_bd_cell -type module -reference {WRAPPER} accelerator
set_property CONFIG.FREQ_HZ {target.clock} [get_bd_pins accelerator/aclk]
{shell}
assign_bd_address
{_addresses(target)}
validate_bd_design
save_bd_design
make_wrapper -files [get_files {DESIGN}.bd] -top -import
set_property top {DESIGN}_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 8
wait_on_run impl_1
if {{[get_property PROGRESS [get_runs impl_1]] ne "100%"}} {{
  error "implementation failed, see vivado/{target.name}.runs"
}}
open_run impl_1
report_timing_summary -file timing.txt
report_utilization -hierarchical -file utilization.txt
if {{[get_property STATS.WNS [get_runs impl_1]] < 0}} {{ error "timing is not met, see timing.txt" }}
write_bitstream -force {target.name}.bit
write_hw_platform -fixed -force -include_bit {target.name}.xsa
"""


def constraints(target: XilinxTarget) -> str:
    """XDC beyond what the board files of Vivado bring."""
    if target.shell == "zynq":
        return "# All pins belong to the processing system, its clock comes with the block design.\n"
    card = card_of(target)
    positive, negative = card.clock_pins
    lines = [
        f"set_property -dict {{PACKAGE_PIN {positive} IOSTANDARD LVDS}} [get_ports hbm_clock_clk_p]",
        f"set_property -dict {{PACKAGE_PIN {negative} IOSTANDARD LVDS}} [get_ports hbm_clock_clk_n]",
        "set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]",
    ]
    if card.port_clock:
        lines.append("create_clock -period 10.000 -name hbm_clock [get_ports hbm_clock_clk_p]")
    if card.cattrip_pin:
        lines.append(
            f"set_property -dict {{PACKAGE_PIN {card.cattrip_pin} IOSTANDARD LVCMOS18 PULLTYPE PULLDOWN}} "
            "[get_ports hbm_cattrip]"
        )
    return "".join(f"{line}\n" for line in lines)


def _zynq(target: XilinxTarget) -> str:
    """Registers on HPM0, memory ports on HP0 to HP3, everything in the clock PL0."""
    used = PROCESSOR_PORTS[: len(target.bases)]
    ports = [
        line
        for port in used
        for line in (
            f"CONFIG.PSU__USE__{port} {{1}} \\",
            f"CONFIG.PSU__{port.replace('_', '')}__DATA_WIDTH {{{8 * target.port_bytes}}} \\",
        )
    ]
    links = [
        line
        for index in range(len(used))
        for line in (
            f"connect_bd_intf_net [get_bd_intf_pins accelerator/m{index:02}] [get_bd_intf_pins ps/S_AXI_HP{index}_FPD]",
            f"connect_bd_net [get_bd_pins ps/pl_clk0] [get_bd_pins ps/saxihp{index}_fpd_aclk]",
        )
    ]
    newline = "\n"
    return f"""\
create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps
apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {{apply_board_preset "1"}} [get_bd_cells ps]
set_property -dict [list \\
  CONFIG.PSU__USE__M_AXI_GP0 {{1}} \\
  CONFIG.PSU__USE__M_AXI_GP1 {{0}} \\
  CONFIG.PSU__USE__M_AXI_GP2 {{0}} \\
  CONFIG.PSU__FPGA_PL0_ENABLE {{1}} \\
  CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ {{{target.clock / 1e6:g}}} \\
  {f"{newline}  ".join(ports)}
] [get_bd_cells ps]
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset
connect_bd_net [get_bd_pins ps/pl_clk0] [get_bd_pins reset/slowest_sync_clk] [get_bd_pins accelerator/aclk]
connect_bd_net [get_bd_pins ps/pl_resetn0] [get_bd_pins reset/ext_reset_in]
connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins accelerator/aresetn]
{newline.join(links)}
apply_bd_automation -rule xilinx.com:bd_rule:axi4 -config {{Master "/ps/M_AXI_HPM0_FPD" Slave "/accelerator/s_axil" \\
  Clk_master "/ps/pl_clk0 ({target.clock // 10**6} MHz)" Clk_slave "/ps/pl_clk0 ({target.clock // 10**6} MHz)"}} \\
  [get_bd_intf_pins accelerator/s_axil]"""


def _addresses(target: XilinxTarget) -> str:
    """Registers where the device file says, memory where the stripes begin."""
    master = {"zynq": "ps/Data", "pcie": "xdma/M_AXI_LITE"}[target.shell]
    return (
        f"set registers [get_bd_addr_segs {master}/SEG_accelerator_*]\n"
        f"set_property offset 0x{REGISTER_BASE[target.shell]:X} $registers\n"
        f"set_property range {REGISTER_WINDOW // 1024}K $registers"
    )
