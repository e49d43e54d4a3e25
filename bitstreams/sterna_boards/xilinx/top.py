"""The top level for a block design: the accelerator and its memory ports, in a wrapper with the names tools know."""

from __future__ import annotations

from amaranth import Module
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.registers import REGISTER_SPACE_BITS
from sterna_boards.xilinx.targets import XilinxTarget
from sterna_hw.accelerator import Accelerator
from sterna_hw.axi import AXI4Lite, AXI4Read, AXI4Write
from sterna_hw.clusters import Clusters
from sterna_hw.stripe import Stripe

CORE, CLUSTER, WRAPPER = "sterna_core", "sterna_cluster", "sterna"
# Of every transaction: cacheable and bufferable normal memory, unprivileged data; nothing is locked.
SIDEBAND = {"cache": (4, 0b0011), "prot": (3, 0), "lock": (1, 0), "qos": (4, 0)}


class XilinxTop(wiring.Component):  # type: ignore[misc]  # amaranth: no types
    """The accelerator of ``target``; its clusters, if it has several, are instances of the module ``CLUSTER``.

    Attributes:
        m00, m01, …: Out AXI4 to the ports of the memory.
        s_axil: In The register map.
    """

    def __init__(self, target: XilinxTarget) -> None:
        self._target = target
        super().__init__(_members(target))

    def elaborate(self, platform: object) -> Module:
        """Accelerator and stripe, or clusters whose addresses begin at their bases; nothing else."""
        m = Module()
        if self._target.config.clusters > 1:
            self._clusters(m)
        else:
            self._striped(m)
        return m

    def _striped(self, m: Module) -> None:
        target = self._target
        m.submodules.accelerator = accelerator = Accelerator(config=target.config)
        m.submodules.stripe = stripe = Stripe(
            address_width=target.config.address_width,
            port_address_width=target.port_address_width,
            data_bytes=target.config.beat_bytes,
            bases=target.bases,
        )
        wiring.connect(m, accelerator.m_axi, stripe.wide)
        for index in range(stripe.ports):
            wiring.connect(m, getattr(stripe, f"port{index}"), wiring.flipped(getattr(self, _port(index))))
        wiring.connect(m, wiring.flipped(self.s_axil), accelerator.s_axil)

    def _clusters(self, m: Module) -> None:
        m.submodules.clusters = clusters = Clusters(config=self._target.config, cluster=CLUSTER)
        for index, base in enumerate(self._target.bases):
            inner, outer = clusters.m_axi[index], getattr(self, _port(index))
            for name, member in outer.signature.members.items():
                source, sink = (inner, outer) if member.flow is Out else (outer, inner)
                offset = base if name in ("araddr", "awaddr") else 0
                m.d.comb += getattr(sink, name).eq(getattr(source, name) + offset)
        wiring.connect(m, wiring.flipped(self.s_axil), clusters.s_axil)


def core_modules(target: XilinxTarget) -> dict[str, wiring.Component]:
    """The components of the core by the names of their modules, ``CORE`` last; each is a hierarchy of its own."""
    cluster = {CLUSTER: Accelerator(config=target.config)} if target.config.clusters > 1 else {}
    return {**cluster, CORE: XilinxTop(target)}


def core_verilog(target: XilinxTarget) -> str:
    """Module ``sterna_core``, and what it instantiates."""
    modules = core_modules(target)
    return "".join(verilog.convert(part, name=name, strip_internal_attrs=True) for name, part in modules.items())


def wrapper_verilog(target: XilinxTarget) -> str:
    """Module ``sterna``: ports and attributes by which a block design sees AXI interfaces, a synchronised reset."""
    buses = [_port(index) for index in range(len(target.bases))]
    ports = [
        '(* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)',
        f'(* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF {":".join([*buses, "s_axil"])}, ASSOCIATED_RESET aresetn" *)',
        "input wire aclk,",
        '(* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)',
        '(* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)',
        "input wire aresetn,",
    ]
    links = [".clk(aclk)", ".rst(reset[1])"]
    for bus, member in _members(target).items():
        for name, signal in member.signature.members.items():
            ports.append(_declaration(bus, name, signal.shape, signal.flow is Out))
            links.append(f".{bus}__{name}({bus}_{name})")
        if bus in buses:
            ports += [
                _declaration(bus, f"{channel}{name}", width, True)
                for channel in ("ar", "aw")
                for name, (width, _) in SIDEBAND.items()
            ]
    ports[-1] = ports[-1].removesuffix(",")
    constants = [
        f"assign {bus}_{channel}{name} = {width}'d{value};"
        for bus in buses
        for channel in ("ar", "aw")
        for name, (width, value) in SIDEBAND.items()
    ]
    newline = "\n  "
    return f"""\
// The accelerator of {target.name} for a block design.
module {WRAPPER} (
  {newline.join(ports)}
);
  reg [1:0] reset = 2'b11;
  always @(posedge aclk) reset <= {{reset[0], ~aresetn}};
  {newline.join(constants)}
  {CORE} core (
    {f",{newline}  ".join(links)}
  );
endmodule
"""


def _members(target: XilinxTarget) -> dict[str, wiring.Member]:
    read = AXI4Read(target.port_address_width, target.port_bytes)
    write = AXI4Write(target.port_address_width, target.port_bytes)
    port = wiring.Signature({**dict(read.members), **dict(write.members)})
    return {
        **{_port(index): Out(port) for index in range(len(target.bases))},
        "s_axil": In(AXI4Lite(REGISTER_SPACE_BITS)),
    }


def _port(index: int) -> str:
    return f"m{index:02}"


def _declaration(bus: str, name: str, width: int, outward: bool) -> str:
    direction, vector = "output" if outward else "input", f"[{width - 1}:0] " if width > 1 else ""
    info = f'(* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 {bus} {name.upper()}" *)'
    return f"{info} {direction} wire {vector}{bus}_{name},"
