"""Tcl for Vivado: a project with the block design around the accelerator, from synthesis to the bitstream.

Written from the vendor's documentation of the IP (PG201 processing system, PG195 XDMA, PG276 HBM); nobody has run it
in Vivado yet.
"""

from __future__ import annotations

from sterna_boards.xilinx.targets import REGISTER_WINDOW, XilinxTarget
from sterna_boards.xilinx.top import CORE, WRAPPER

DESIGN = "system"
REGISTER_BASE = {"zynq": 0xA000_0000, "pcie": 0}
PROCESSOR_PORTS = ("S_AXI_GP2", "S_AXI_GP3", "S_AXI_GP4", "S_AXI_GP5")  # S_AXI_HP0_FPD to S_AXI_HP3_FPD
HBM_PORTS = 32
HBM_PORT_STRIDE = 2  # ports of one memory channel share its rate, so every second one is used
HBM_CLOCK_PIN = {"p": "BK43", "n": "BK44"}  # 100 MHz, of the U55C


def project_tcl(target: XilinxTarget) -> str:
    """The script of the whole build; run it in the folder that it was emitted into."""
    shell = {"zynq": _zynq, "pcie": _pcie}[target.shell](target)
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
    positive, negative = HBM_CLOCK_PIN["p"], HBM_CLOCK_PIN["n"]
    return f"""\
set_property -dict {{PACKAGE_PIN {positive} IOSTANDARD LVDS}} [get_ports hbm_clock_clk_p]
set_property -dict {{PACKAGE_PIN {negative} IOSTANDARD LVDS}} [get_ports hbm_clock_clk_n]
set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
"""


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


def _pcie(target: XilinxTarget) -> str:
    """Registers on XDMA's AXI4-Lite port; HBM ports take both the DMA and the accelerator, in XDMA's clock."""
    ports = [HBM_PORT_STRIDE * index for index in range(len(target.bases))]
    off = [f"CONFIG.USER_SAXI_{port:02} {{false}} \\" for port in range(HBM_PORTS) if port not in ports]
    links = []
    for index, port in enumerate(ports):
        links += [
            f"create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect connect{index}",
            f"set_property -dict [list CONFIG.NUM_SI 2 CONFIG.NUM_MI 1] [get_bd_cells connect{index}]",
            f"connect_bd_intf_net [get_bd_intf_pins accelerator/m{index:02}] [get_bd_intf_pins connect{index}/S00_AXI]",
            f"connect_bd_intf_net [get_bd_intf_pins dma/M{index:02}_AXI] [get_bd_intf_pins connect{index}/S01_AXI]",
            f"connect_bd_intf_net [get_bd_intf_pins connect{index}/M00_AXI] [get_bd_intf_pins hbm/SAXI_{port:02}]",
            f"connect_bd_net [get_bd_pins xdma/axi_aclk] [get_bd_pins connect{index}/aclk] "
            f"[get_bd_pins hbm/AXI_{port:02}_ACLK]",
            f"connect_bd_net [get_bd_pins xdma/axi_aresetn] [get_bd_pins connect{index}/aresetn] "
            f"[get_bd_pins hbm/AXI_{port:02}_ARESET_N]",
        ]
    newline = "\n"
    return f"""\
create_bd_cell -type ip -vlnv xilinx.com:ip:xdma xdma
apply_bd_automation -rule xilinx.com:bd_rule:xdma -config {{ \\
  accel {{1}} auto_level {{IP Level}} axi_clk {{{target.clock // 10**6}}} axi_intf {{AXI Memory Mapped}} \\
  bar_size {{Disable}} bypass_size {{Disable}} c2h {{1}} cache_size {{32k}} h2c {{1}} \\
  lane_width {{X16}} link_speed {{8.0 GT/s (PCIe Gen 3)}}}} [get_bd_cells xdma]
set_property -dict [list CONFIG.axilite_master_en {{true}} CONFIG.axilite_master_size {{64}} \\
  CONFIG.axilite_master_scale {{Kilobytes}}] [get_bd_cells xdma]
create_bd_cell -type ip -vlnv xilinx.com:ip:hbm hbm
set_property -dict [list \\
  CONFIG.USER_HBM_DENSITY {{16GB}} \\
  CONFIG.USER_HBM_STACK {{2}} \\
  CONFIG.USER_SWITCH_ENABLE_00 {{TRUE}} \\
  {f"{newline}  ".join(off)}
] [get_bd_cells hbm]
create_bd_cell -type ip -vlnv xilinx.com:ip:util_ds_buf hbm_buffer
create_bd_intf_port -mode Slave -vlnv xilinx.com:interface:diff_clock_rtl:1.0 hbm_clock
set_property CONFIG.FREQ_HZ 100000000 [get_bd_intf_ports hbm_clock]
connect_bd_intf_net [get_bd_intf_ports hbm_clock] [get_bd_intf_pins hbm_buffer/CLK_IN_D]
foreach pin {{HBM_REF_CLK_0 HBM_REF_CLK_1 APB_0_PCLK APB_1_PCLK}} {{
  connect_bd_net [get_bd_pins hbm_buffer/IBUF_OUT] [get_bd_pins hbm/$pin]
}}
foreach pin {{APB_0_PRESET_N APB_1_PRESET_N}} {{ connect_bd_net [get_bd_pins xdma/axi_aresetn] [get_bd_pins hbm/$pin] }}
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect dma
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI {len(ports)}] [get_bd_cells dma]
connect_bd_intf_net [get_bd_intf_pins xdma/M_AXI] [get_bd_intf_pins dma/S00_AXI]
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1] [get_bd_cells control]
connect_bd_intf_net [get_bd_intf_pins xdma/M_AXI_LITE] [get_bd_intf_pins control/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins control/M00_AXI] [get_bd_intf_pins accelerator/s_axil]
connect_bd_net [get_bd_pins xdma/axi_aclk] [get_bd_pins accelerator/aclk] [get_bd_pins dma/aclk] \\
  [get_bd_pins control/aclk]
connect_bd_net [get_bd_pins xdma/axi_aresetn] [get_bd_pins accelerator/aresetn] [get_bd_pins dma/aresetn] \\
  [get_bd_pins control/aresetn]
{newline.join(links)}"""


def _addresses(target: XilinxTarget) -> str:
    """Registers where the device file says, memory where the stripes begin."""
    master = {"zynq": "ps/Data", "pcie": "xdma/M_AXI_LITE"}[target.shell]
    return (
        f"set registers [get_bd_addr_segs {master}/SEG_accelerator_*]\n"
        f"set_property offset 0x{REGISTER_BASE[target.shell]:X} $registers\n"
        f"set_property range {REGISTER_WINDOW // 1024}K $registers"
    )
