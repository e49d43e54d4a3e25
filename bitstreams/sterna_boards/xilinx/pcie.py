"""The block design of a PCI Express card with HBM: XDMA, the memory, and the clocks of both."""

from __future__ import annotations

from sterna_boards.xilinx.targets import HbmCard, XilinxTarget

HBM_PORTS = 32
HBM_PORT_STRIDE = 2  # ports of one memory channel share its rate, so every second one is used where that is enough
STACK_PORTS = 16
HBM_REFERENCE = 100  # MHz
HOST_CLOCK, HOST_RESET, HOST_MHZ = "xdma/axi_aclk", "xdma/axi_aresetn", 250
PINS_A_LINE = 3
# Clock and reset of the accelerator and of the HBM's ports, where they are not XDMA's.
FABRIC = ("clocks/clk_out1", "fabric_reset/peripheral_aresetn")
MEMORY = ("clocks/clk_out2", "memory_reset/peripheral_aresetn")


def card_of(target: XilinxTarget) -> HbmCard:
    """What is known of the card of ``target``.

    Raises:
        ValueError: it has none.
    """
    if target.hbm is None:
        raise ValueError(f"{target.name} has the shell 'pcie', so it needs a card with HBM")
    return target.hbm


def pcie(target: XilinxTarget) -> str:
    """Registers on XDMA's AXI4-Lite port; HBM ports take the accelerator and, the first of them, the DMA.

    All is in XDMA's clock; or the accelerator and the HBM's ports have clocks of their own, made of its reference.
    """
    card = card_of(target)
    stride = min(HBM_PORT_STRIDE, HBM_PORTS // len(target.bases))
    ports = [stride * index for index in range(len(target.bases))]
    fabric, memory = (FABRIC, MEMORY) if card.port_clock else ((HOST_CLOCK, HOST_RESET),) * 2
    blocks = [
        _host(),
        _hbm(card, ports),
        *([_clocks(target.clock, card.port_clock)] if card.port_clock else []),
        *([_CATTRIP] if card.cattrip_pin else []),
        *_smartconnect("dma", managers=1, ports=card.host_ports, clocks=(HOST_CLOCK, fabric[0])),
        _bus("xdma/M_AXI", "dma/S00_AXI"),
        *_smartconnect("control", managers=1, ports=1, clocks=(HOST_CLOCK, fabric[0])),
        _bus("xdma/M_AXI_LITE", "control/S00_AXI"),
        _bus("control/M00_AXI", "accelerator/s_axil"),
        *_nets(
            (fabric[0], "accelerator/aclk"),
            *_clock_pins("dma", HOST_CLOCK, fabric[0]),
            *_clock_pins("control", HOST_CLOCK, fabric[0]),
        ),
        *_nets((fabric[1], "accelerator/aresetn"), (HOST_RESET, "dma/aresetn"), (HOST_RESET, "control/aresetn")),
    ]
    for index, port in enumerate(ports):
        connect, shared = f"connect{index}", index < card.host_ports
        blocks += [
            *_smartconnect(connect, managers=1 + shared, ports=1, clocks=(fabric[0], memory[0])),
            _bus(f"accelerator/m{index:02}", f"{connect}/S00_AXI"),
            *([_bus(f"dma/M{index:02}_AXI", f"{connect}/S01_AXI")] if shared else []),
            _bus(f"{connect}/M00_AXI", f"hbm/SAXI_{port:02}"),
            *_nets(*_clock_pins(connect, fabric[0], memory[0]), (memory[0], f"hbm/AXI_{port:02}_ACLK")),
            *_nets((fabric[1], f"{connect}/aresetn"), (memory[1], f"hbm/AXI_{port:02}_ARESET_N")),
        ]
    return "\n".join(blocks)


def _host() -> str:
    return f"""\
create_bd_cell -type ip -vlnv xilinx.com:ip:xdma xdma
apply_bd_automation -rule xilinx.com:bd_rule:xdma -config {{ \\
  accel {{1}} auto_level {{IP Level}} axi_clk {{{HOST_MHZ}}} axi_intf {{AXI Memory Mapped}} \\
  bar_size {{Disable}} bypass_size {{Disable}} c2h {{1}} cache_size {{32k}} h2c {{1}} \\
  lane_width {{X16}} link_speed {{8.0 GT/s (PCIe Gen 3)}}}} [get_bd_cells xdma]
set_property -dict [list CONFIG.axilite_master_en {{true}} CONFIG.axilite_master_size {{64}} \\
  CONFIG.axilite_master_scale {{Kilobytes}}] [get_bd_cells xdma]"""


def _hbm(card: HbmCard, ports: list[int]) -> str:
    settings = [f"CONFIG.USER_HBM_DENSITY {{{card.density}}}", "CONFIG.USER_HBM_STACK {2}"]
    settings.append("CONFIG.USER_SWITCH_ENABLE_00 {TRUE}")
    if max(ports) >= STACK_PORTS:
        settings.append("CONFIG.USER_SWITCH_ENABLE_01 {TRUE}")
    if card.port_clock:
        names = ("AXI_CLK", "AXI_CLK1", "AXI_INPUT_CLK", "AXI_INPUT_CLK1")
        settings += [f"CONFIG.USER_{name}_FREQ {{{card.port_clock // 10**6}}}" for name in names]
    settings += [f"CONFIG.USER_SAXI_{port:02} {{false}}" for port in range(HBM_PORTS) if port not in ports]
    lines = "\n".join(f"  {setting} \\" for setting in settings)
    return f"""\
create_bd_cell -type ip -vlnv xilinx.com:ip:hbm hbm
set_property -dict [list \\
{lines}
] [get_bd_cells hbm]
create_bd_cell -type ip -vlnv xilinx.com:ip:util_ds_buf hbm_buffer
create_bd_intf_port -mode Slave -vlnv xilinx.com:interface:diff_clock_rtl:1.0 hbm_clock
set_property CONFIG.FREQ_HZ {HBM_REFERENCE * 10**6} [get_bd_intf_ports hbm_clock]
connect_bd_intf_net [get_bd_intf_ports hbm_clock] [get_bd_intf_pins hbm_buffer/CLK_IN_D]
foreach pin {{HBM_REF_CLK_0 HBM_REF_CLK_1 APB_0_PCLK APB_1_PCLK}} {{
  connect_bd_net [get_bd_pins hbm_buffer/IBUF_OUT] [get_bd_pins hbm/$pin]
}}
foreach pin {{APB_0_PRESET_N APB_1_PRESET_N}} {{ connect_bd_net [get_bd_pins {HOST_RESET}] [get_bd_pins hbm/$pin] }}"""


def _clocks(fabric: int, memory: int) -> str:
    """The clocks ``FABRIC`` and ``MEMORY``, in hertz, of an MMCM, and their resets."""
    lines = [
        "create_bd_cell -type ip -vlnv xilinx.com:ip:clk_wiz clocks",
        f"set_property -dict [list CONFIG.PRIM_SOURCE {{No_buffer}} CONFIG.PRIM_IN_FREQ {{{HBM_REFERENCE}}} \\",
        f"  CONFIG.CLKOUT1_REQUESTED_OUT_FREQ {{{fabric / 1e6:g}}} CONFIG.CLKOUT2_USED {{true}} \\",
        f"  CONFIG.CLKOUT2_REQUESTED_OUT_FREQ {{{memory / 1e6:g}}} CONFIG.USE_LOCKED {{true}} \\",
        "  CONFIG.USE_RESET {false}] [get_bd_cells clocks]",
        *_nets(("hbm_buffer/IBUF_OUT", "clocks/clk_in1")),
    ]
    for clock, reset in (FABRIC, MEMORY):
        cell = reset.split("/")[0]
        lines += [
            f"create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset {cell}",
            *_nets((clock, f"{cell}/slowest_sync_clk"), (HOST_RESET, f"{cell}/ext_reset_in")),
            *_nets(("clocks/locked", f"{cell}/dcm_locked")),
        ]
    return "\n".join(lines)


# The card cuts its power when this pin is high, and pulls it up where nothing drives it.
_CATTRIP = """\
create_bd_cell -type ip -vlnv xilinx.com:ip:util_vector_logic too_hot
set_property -dict [list CONFIG.C_SIZE {1} CONFIG.C_OPERATION {or}] [get_bd_cells too_hot]
create_bd_port -dir O hbm_cattrip
connect_bd_net [get_bd_pins hbm/DRAM_0_STAT_CATTRIP] [get_bd_pins too_hot/Op1]
connect_bd_net [get_bd_pins hbm/DRAM_1_STAT_CATTRIP] [get_bd_pins too_hot/Op2]
connect_bd_net [get_bd_pins too_hot/Res] [get_bd_ports hbm_cattrip]"""


def _smartconnect(name: str, *, managers: int, ports: int, clocks: tuple[str, str]) -> list[str]:
    """A cell that converts widths, and clocks if the two are not one."""
    more = " CONFIG.NUM_CLKS 2" if len(set(clocks)) == 2 else ""
    return [
        f"create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect {name}",
        f"set_property -dict [list CONFIG.NUM_SI {managers} CONFIG.NUM_MI {ports}{more}] [get_bd_cells {name}]",
    ]


def _clock_pins(cell: str, first: str, second: str) -> list[tuple[str, str]]:
    """Driver and pin of a smartconnect's clocks; its reset belongs to the first."""
    return [(first, f"{cell}/aclk"), *([(second, f"{cell}/aclk1")] if second != first else [])]


def _bus(manager: str, subordinate: str) -> str:
    return f"connect_bd_intf_net [get_bd_intf_pins {manager}] [get_bd_intf_pins {subordinate}]"


def _nets(*links: tuple[str, str]) -> list[str]:
    """A net for each driver of ``links`` (driver, pin)."""
    pins: dict[str, list[str]] = {}
    for driver, pin in links:
        pins.setdefault(driver, [driver]).append(pin)
    nets = []
    for net in pins.values():
        words = [f"[get_bd_pins {pin}]" for pin in net]
        lines = [" ".join(words[start : start + PINS_A_LINE]) for start in range(0, len(words), PINS_A_LINE)]
        nets.append("connect_bd_net " + " \\\n  ".join(lines))
    return nets
