"""``sterna devices``: the boards that are plugged in, and what they hold."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sterna.errors import DeviceError

if TYPE_CHECKING:
    from sterna.link.find import Found

_EPILOG = """\
examples:
  sterna devices
      every serial port of a USB adapter and every USB device that answers as a board of ours
  sterna devices serial:/dev/ttyUSB0 usb
      only these; one that does not answer is an error
  sterna devices serial:/dev/ttyUSB0 --rate
      also how fast its memory is written over the link (the memory is started if need be, and keeps its contents)
  sterna devices serial:/dev/ttyUSB0 --test-memory
      overwrite and read all of its memory
  sterna devices --json
      a list of objects, for scripts

Serial ports are tried at each rate that boards have, which takes up to two seconds for one that stays silent."""

NONE = "none"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "devices",
        help="list boards that are plugged in",
        description="List the boards that are plugged in: what they are, and which bitstream they hold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help="serial:PORT, usb or usb:NUMBER (default: all)")
    parser.add_argument("--rate", action="store_true", help="measure how fast memory is written")
    parser.add_argument("--test-memory", action="store_true", help="overwrite and read all of the memory")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.link.find import candidates, probe

    found = [probe(device) for device in args.devices] if args.devices else _search(candidates())
    entries = [_entry(board) | _tried(board.device, args) for board in found]
    print(json.dumps(entries) if args.json else "\n\n".join(map(_text, entries)))
    return 0


def _search(devices: tuple[str, ...]) -> list[Found]:
    from sterna.cli.progress import progress
    from sterna.link.find import probe

    found = []
    for device in progress(devices, label="boards", unit="port"):
        try:
            found.append(probe(device))
        except DeviceError:  # a modem, a printer, a board without our bitstream, a port in use
            continue
    if not found:
        raise DeviceError(
            f"no board answers (tried: {', '.join(devices) or 'no port is there'}): check cable, power and that its "
            "bitstream is loaded (`sterna flash`)"
        )
    return found


def _tried(device: str, args: argparse.Namespace) -> dict[str, Any]:
    """What only an open board can tell."""
    from sterna.cli.progress import progress
    from sterna.engines.transport import open_transport
    from sterna.link.rates import measure
    from sterna.link.transport import LinkTransport

    if not (args.rate or args.test_memory):
        return {}
    with open_transport(device, memory_test="full" if args.test_memory else NONE, progress=progress) as transport:
        assert isinstance(transport, LinkTransport)
        result: dict[str, Any] = {"memory_tested": True} if args.test_memory else {}
        return result | ({"load_bytes_per_second": measure(transport, progress=progress)} if args.rate else {})


def _entry(found: Found) -> dict[str, Any]:
    from sterna.spec.board import MemoryState

    identity = found.identity
    description, state = identity.description, identity.memory
    memory = (
        "running" if state & MemoryState.READY else "not started" if state & MemoryState.LOCKED else "without clock"
    )
    return {
        "device": found.device,
        "board": description.board,
        "build": identity.build,
        "config": description.config.name,
        "lanes": description.config.lanes,
        "clock": description.clock,
        "links": list(description.links),
        "baud": found.baud,
        "memory_kind": description.dram.kind,
        "memory_bytes": description.dram.bytes,
        "memory": "faulty" if state & MemoryState.FAILED else memory,
        "damaged_frames": identity.damaged,
        "lost_bytes": identity.overflows,
    }


def _text(entry: dict[str, Any]) -> str:
    link = f"{entry['baud']:,} baud" if entry["baud"] else "USB bulk"
    lines = [
        f"{entry['device']}",
        f"  board    {entry['board']}, build {entry['build']}",
        f"  holds    {entry['config']}: {entry['lanes']} lanes at {entry['clock'] / 1e6:g} MHz",
        f"  memory   {entry['memory_bytes'] / 2**20:,.0f} MiB {entry['memory_kind']}, {entry['memory']}",
        f"  link     {link}; {entry['damaged_frames']} damaged frames, {entry['lost_bytes']} lost bytes since start",
    ]
    if "load_bytes_per_second" in entry:
        lines.append(f"  loading  {entry['load_bytes_per_second'] / 1e6:.3g} MB/s, measured")
    if "memory_tested" in entry:
        lines.append("  test     every byte was written and read")
    return "\n".join(lines)
