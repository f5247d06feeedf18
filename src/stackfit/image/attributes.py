"""What an Arm image says of the processor it is built for: its build attributes (AAELF32 addenda, chapter
2)."""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.image.model import Image

__all__ = ["ArmAttributes", "read_arm_attributes"]

_TEXT_TAGS = (4, 5, 67)  # CPU_raw_name, CPU_name, conformance: NUL-terminated strings
_CPU_NAME, _ARCH, _PROFILE, _FP = 5, 6, 7, 10
_MAXIMUM = 1 << 16  # bytes of the section that are read


@dataclass(frozen=True)
class ArmAttributes:
    """`profile`: "A", "R", "M" or ""; `floating_point`: code may use the registers of an FPU."""

    cpu: str = ""
    architecture: int = 0
    profile: str = ""
    floating_point: bool = False


def read_arm_attributes(image: Image) -> ArmAttributes | None:
    """The attributes of the whole file; None: it has none, or they cannot be read."""
    section = image.section(".ARM.attributes")
    if section is None or section.data.size < 16 or int(section.data[0]) != ord("A"):
        return None
    data = section.data[:_MAXIMUM].tobytes()
    name_end = data.find(b"\0", 5)
    if data[5:name_end] != b"aeabi" or data[name_end + 1] != 1:  # Tag_File
        return None
    end = min(name_end + 1 + int.from_bytes(data[name_end + 2 : name_end + 6], "little"), len(data))
    at = name_end + 6
    values: dict[int, int | str] = {}
    while at < end:
        tag, at = _number(data, at)
        if tag in _TEXT_TAGS or (tag > 32 and tag & 1):
            stop = data.find(b"\0", at)
            if stop < 0:
                break
            values[tag] = data[at:stop].decode("latin-1")
            at = stop + 1
        else:
            value, at = _number(data, at)
            if tag == 32:  # compatibility: a flag and a string
                at = data.find(b"\0", at) + 1
                if not at:
                    break
            values[tag] = value
    profile = values.get(_PROFILE, 0)
    return ArmAttributes(
        cpu=str(values.get(_CPU_NAME, "")),
        architecture=int(values.get(_ARCH, 0)),
        profile=chr(int(profile)) if profile in tuple(b"ARMS") else "",
        floating_point=bool(values.get(_FP, 0)),
    )


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number and the offset behind it."""
    value = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    return value, at
