"""The serial ports of this machine: their names, whose they are, and what is wrong when one does not open."""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

logger = logging.getLogger(__name__)


def port_names() -> list[str]:
    """Give the names of the serial ports of this machine."""
    return sorted(port.device for port in _ports())


@dataclass(frozen=True)
class PortIdentity:
    """What is known of the device behind a port, to find it again under another name.

    Attributes:
        name: The port's name when it was opened.
        vendor: USB vendor number, or None for a port that is not USB.
        product: USB product number.
        serial_number: Of the device, or "" if it has none (a CH340 does not).
        location: Where it is plugged in, such as ``1-2:1.0``; "" where that is not known.
    """

    name: str
    vendor: int | None = None
    product: int | None = None
    serial_number: str = ""
    location: str = ""

    @classmethod
    def of(cls, name: str) -> PortIdentity:
        """Look up the device behind a port that is there."""
        real = os.path.realpath(name)  # /dev/serial/by-id/… are links
        for port in _ports():
            if port.device in (name, real):
                return cls._of(port, name)
        return cls(name)

    @classmethod
    def _of(cls, port: ListPortInfo, name: str) -> PortIdentity:
        return cls(name, port.vid, port.pid, port.serial_number or "", port.location or "")

    def __str__(self) -> str:
        if self.vendor is None or self.product is None:
            return self.name
        numbers = f"USB device {self.vendor:04X}:{self.product:04X}"
        if self.serial_number:
            return f"{numbers} with serial number {self.serial_number}, last at {self.name}"
        return f"{numbers} at {self.location or self.name}, last at {self.name}"

    def find(self) -> str | None:
        """Give the name under which the device is now, or None while it is not there.

        A USB device is found by its serial number, and one without by where it is plugged in. Any other port is
        looked for by its name, which the caller finds out by opening it.
        """
        if self.vendor is None or not (self.serial_number or self.location):
            return self.name
        for port in sorted(_ports(), key=lambda port: (port.device != self.name, port.device)):
            if self._is(self._of(port, port.device)):
                if os.path.realpath(self.name) == port.device:
                    return self.name
                logger.info("%s is now %s", self, port.device)
                return str(port.device)
        return None

    def _is(self, other: PortIdentity) -> bool:
        if (self.vendor, self.product, self.serial_number) != (other.vendor, other.product, other.serial_number):
            return False
        if self.serial_number:  # one device may have several ports: its interfaces
            return self.location.partition(":")[2] == other.location.partition(":")[2]
        return self.location == other.location


def _ports() -> list[ListPortInfo]:
    try:
        return list(list_ports.comports())
    except (OSError, TypeError, ValueError) as error:  # a device went while it was looked at
        logger.info("the ports cannot be listed: %s", error)
        return []


def advice(url: str, error: OSError) -> str:
    """Say why a port did not open, and what to do."""
    text = str(error)
    if "://" in url:
        if has_no_cable(url):
            return text
        return f"{url} cannot be opened: {text}; check that the other side is running, and the address"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in text:
        names = port_names()
        there = f"ports there are: {', '.join(names)}" if names else "this machine has no serial port now"
        return f"there is no port {url}; {there}. Check the cable, or use sim://native, which needs no board"
    if "PermissionError" in text:  # pyserial's words on Windows
        return f"{url} may not be opened: {text}; perhaps another program has it open: close that and try again"
    if error.errno in (errno.EACCES, errno.EPERM) and "lock" not in text:
        return f"{url} may not be opened: {text}. {_permission_hint(url)}"
    if error.errno in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "lock" in text:
        return (
            f"{url} is busy: another program has it open (a monitor, an IDE, ModemManager?); close that and try again"
        )
    return f"{url} cannot be opened: {text}"


def has_no_cable(url: str) -> bool:
    """Tell whether the device is a process of this machine, whose errors say all that there is to say."""
    return url.lower().startswith(("sim://", "qemu://"))


def _permission_hint(name: str) -> str:
    """Say how one may get at a port that belongs to others."""
    rule = 'a udev rule (SUBSYSTEM=="tty", MODE="0660", GROUP="dialout", in /etc/udev/rules.d/60-serial.rules)'
    group, writes = _group_of(name)
    if group in ("", "root", "wheel") or not writes:
        whose = f"Its group is {group or 'not known'}" + ("" if writes else ", which may not write to it either")
        return f"{whose}: add {rule}, then plug it in again"
    return (
        f"It belongs to the group {group}: become a member (sudo usermod -aG {group} $USER, then log in again), or add "
        f"{rule}"
    )


def _group_of(name: str) -> tuple[str, bool]:
    """Give the group that owns a device file, "" if that is not known, and whether it may read and write."""
    try:
        status = Path(name).stat()
    except OSError:
        return "dialout", True  # the usual one
    wanted = stat.S_IRGRP | stat.S_IWGRP
    try:
        import grp  # noqa: PLC0415 - not on every system

        group = grp.getgrgid(status.st_gid).gr_name
    except (ImportError, KeyError):
        group = str(status.st_gid)
    return group, status.st_mode & wanted == wanted
