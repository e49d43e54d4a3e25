"""What clusters exchange: sums and the largest of all of them, and their shares of the activations."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import exchange_signature
from sterna_hw.pipeline import registered, tree

GATHER_LATENCY = 4  # registers between a cluster's share and the whole row, for the way across the chip


def agreement_latency(clusters: int) -> int:
    """Cycles from that in which the last of the clusters makes its offer to ``agreed_valid``."""
    return 1 + exact_log2(clusters) + 1


def _larger(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)


class Exchange(wiring.Component):
    """Joins the offers of all clusters, and their shares.

    Offers go through a registered tree, valid bits along with the values. When all that entered it in the same cycle
    were valid, all clusters get the result in the same cycle, :func:`agreement_latency` after the last offer; that is
    also their barrier. Every cluster takes its offer back in the next cycle, so a result counts once: when ``complete``
    rises. The tree holds nothing that must be forgotten, whenever a cluster is reset.

    S1 and S2 are sums modulo 2**64. The shares come in step, as all clusters agree in the same cycle: those of cluster
    0 say where the row goes. It arrives ``GATHER_LATENCY`` later.

    Attributes:
        clusters: In What each cluster has and gets, see :func:`exchange_signature`.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        if config.clusters < 2:
            raise ValueError(f"an exchange needs at least 2 clusters, not {config.clusters!r}")
        super().__init__({"clusters": In(exchange_signature(config)).array(config.clusters)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clusters = [self.clusters[number] for number in range(self.signature.members["clusters"].dimensions[0])]
        first = clusters[0]

        complete = tree(m, [registered(m, c.offer_valid, 1) for c in clusters], lambda a, b: a & b, 0)
        sums = [
            tree(m, [registered(m, c.offer_sums[place], len(total)) for c in clusters], lambda a, b: a + b, 0)
            for place, total in enumerate(first.offer_sums)
        ]
        top = tree(m, [registered(m, c.offer_top, len(c.offer_top)) for c in clusters], _larger, 0)
        before, agreed = Signal(), Signal()
        m.d.sync += [before.eq(complete), agreed.eq(complete & ~before)]
        agreed_sums = [registered(m, total, len(total)) for total in sums]
        agreed_top = registered(m, top, len(top))

        row = Cat(Cat(c.share.data for c in clusters), first.share.address)
        enable: Value = first.share.enable
        for _ in range(GATHER_LATENCY):
            row = registered(m, row, len(row))
            arrived = Signal(name="enable")
            m.d.sync += arrived.eq(enable)
            enable = arrived

        for cluster in clusters:
            m.d.comb += [
                cluster.agreed_valid.eq(agreed),
                *(cluster.agreed_sums[place].eq(total) for place, total in enumerate(agreed_sums)),
                cluster.agreed_top.eq(agreed_top),
                cluster.gathered.enable.eq(enable),
                Cat(cluster.gathered.data, cluster.gathered.address).eq(row),
            ]
        return m
