"""How the tokens of a pass are put to the accelerator: the words of SLOT_n."""

from __future__ import annotations

from collections.abc import Mapping

from sterna.engines.engine import Origin, SlotToken
from sterna.errors import SternaError
from sterna.spec.registers import SOURCE_OFFSET, SlotMode


def slot_mode(slot: int, entry: SlotToken | None, *, head: bool) -> int:
    """What SLOT_n says for a token, or for none."""
    if entry is None:
        return SlotMode.IDLE
    mode = SlotMode.LOGITS if entry.logits and head else SlotMode(0)
    match entry.origin:
        case Origin.FRESH:
            return mode | SlotMode.FRESH
        case Origin.CHAIN:
            return mode | SlotMode.CHAINED
        case source:
            return mode if source == slot else mode | SlotMode.MOVED | source << SOURCE_OFFSET


def check_slots(tokens: Mapping[int, SlotToken], slots: int) -> None:
    """Refuse a pass that names slots which a build of so many does not have, or a chain without a beginning.

    Raises:
        SternaError: it does, or has no token at all.
    """
    if not tokens:
        raise SternaError("a pass needs a token in at least one slot")
    for slot, entry in tokens.items():
        origin = slot if isinstance(entry.origin, Origin) else entry.origin
        if not (0 <= slot < slots and 0 <= origin < slots):
            raise SternaError(f"a token for slot {slot} from slot {origin}: the accelerator has slots 0..{slots - 1}")
        if entry.origin is Origin.CHAIN and slot - 1 not in tokens:
            raise SternaError(f"slot {slot} goes on from the slot before, which has no token in this pass")
