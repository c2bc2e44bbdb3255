"""What USB vendor and product numbers of a serial port stand for: data only.

Held against the usb.ids list, OpenOCD's udev rules and Arduino's boards.txt (tests/host/test_usb.py).
"""

from __future__ import annotations

from dataclasses import dataclass

_NUCLEO = ("nucleo_f446re", "nucleo_f401re", "nucleo_f411re")
_ESP32_DEVKIT = ("esp32dev", "esp32-s3-devkitc-1", "esp32-c3-devkitm-1")
_ESP32_OWN_USB = ("esp32-s3-devkitc-1", "esp32-c3-devkitm-1")
_MEGA = ("mega2560",)

ST_VENDOR = 0x0483
STLINK_PRODUCTS = (0x3744, 0x3748, 0x374A, 0x374B, 0x374D, 0x374E, 0x374F, 0x3752, 0x3753, 0x3754, 0x3755, 0x3757)
"""All ST-LINKs, those without a serial port as well."""


@dataclass(frozen=True)
class UsbIdentity:
    """What a vendor and product number stand for.

    Attributes:
        vendor: USB vendor number.
        product: USB product number.
        title: For a person.
        boards: Boards of the catalogue whose line it usually is.
        adapter: Whether the chip is also sold as a bare adapter, on which any board may hang.
    """

    vendor: int
    product: int
    title: str
    boards: tuple[str, ...] = ()
    adapter: bool = False

    @property
    def is_stlink(self) -> bool:
        """True for the serial port of an ST-LINK."""
        return self.vendor == ST_VENDOR


USB_IDENTITIES: tuple[UsbIdentity, ...] = (
    # An ST-LINK/V2 (3748) has no serial port, and that of a Discovery board leads nowhere.
    UsbIdentity(ST_VENDOR, 0x374B, "ST-LINK/V2-1", _NUCLEO),
    UsbIdentity(ST_VENDOR, 0x3752, "ST-LINK/V2-1", _NUCLEO),
    UsbIdentity(ST_VENDOR, 0x374E, "STLINK-V3", _NUCLEO),
    UsbIdentity(ST_VENDOR, 0x374F, "STLINK-V3", _NUCLEO),
    UsbIdentity(ST_VENDOR, 0x3753, "STLINK-V3", _NUCLEO),
    UsbIdentity(ST_VENDOR, 0x3754, "STLINK-V3", _NUCLEO),
    UsbIdentity(0x10C4, 0xEA60, "Silicon Labs CP210x", _ESP32_DEVKIT, adapter=True),
    UsbIdentity(0x1A86, 0x7523, "WCH CH340", ("esp32dev", *_MEGA), adapter=True),
    UsbIdentity(0x1A86, 0x55D4, "WCH CH9102", ("esp32dev",), adapter=True),
    UsbIdentity(0x0403, 0x6001, "FTDI FT232R", adapter=True),
    UsbIdentity(0x0403, 0x6010, "FTDI FT2232", adapter=True),
    UsbIdentity(0x0403, 0x6014, "FTDI FT232H", adapter=True),
    UsbIdentity(0x0403, 0x6015, "FTDI FT-X", adapter=True),
    UsbIdentity(0x067B, 0x2303, "Prolific PL2303", adapter=True),
    UsbIdentity(0x303A, 0x1001, "Espressif USB serial/JTAG", _ESP32_OWN_USB),
    UsbIdentity(0x2341, 0x0010, "Arduino Mega 2560", _MEGA),
    UsbIdentity(0x2341, 0x0042, "Arduino Mega 2560 R3", _MEGA),
    UsbIdentity(0x2341, 0x0210, "Arduino Mega 2560", _MEGA),
    UsbIdentity(0x2341, 0x0242, "Arduino Mega 2560 R3", _MEGA),
    UsbIdentity(0x2A03, 0x0010, "Arduino Mega 2560 (arduino.org)", _MEGA),
    UsbIdentity(0x2A03, 0x0042, "Arduino Mega 2560 R3 (arduino.org)", _MEGA),
)

_BY_NUMBERS = {(each.vendor, each.product): each for each in USB_IDENTITIES}


def usb_identity(vendor: int | None, product: int | None) -> UsbIdentity | None:
    """Give what a vendor and product number stand for, or None where that is not known."""
    return None if vendor is None or product is None else _BY_NUMBERS.get((vendor, product))
