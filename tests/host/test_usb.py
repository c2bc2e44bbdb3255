"""USB numbers of boards, against public lists where a machine has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitloop.boards import BOARDS
from bitloop.boards.usb import ST_VENDOR, STLINK_PRODUCTS, USB_IDENTITIES, usb_identity

UDEV = Path("/usr/lib/udev/rules.d/60-openocd.rules")
ARDUINO = Path("/usr/share/arduino/hardware/arduino/avr/boards.txt")
USB_IDS = (Path("/usr/share/misc/usb.ids"), Path("/var/lib/usbutils/usb.ids"), Path("/usr/share/hwdata/usb.ids"))


def numbers_of(board: str) -> set[tuple[int, int]]:
    return {(each.vendor, each.product) for each in USB_IDENTITIES if board in each.boards}


def test_the_table_is_sound() -> None:
    assert len({(each.vendor, each.product) for each in USB_IDENTITIES}) == len(USB_IDENTITIES)
    names = {board.name for board in BOARDS}
    assert all(set(each.boards) <= names for each in USB_IDENTITIES)
    found = usb_identity(0x0483, 0x374B)
    assert found is not None
    assert found.is_stlink
    assert "nucleo_f446re" in found.boards
    assert usb_identity(0x0483, 0x0001) is None
    assert usb_identity(None, None) is None


def test_stlinks_are_those_openocd_opens() -> None:
    if not UDEV.is_file():
        pytest.skip(f"{UDEV} is not here (apt install openocd)")
    rule = re.compile(r'ATTRS\{idVendor\}=="0483", ATTRS\{idProduct\}=="(37[0-9a-f]{2})"')
    allowed = {int(product, 16) for product in rule.findall(UDEV.read_text())}
    assert allowed <= set(STLINK_PRODUCTS)
    assert {each.product for each in USB_IDENTITIES if each.vendor == ST_VENDOR} <= allowed


def test_the_mega_is_known_by_all_its_numbers() -> None:
    if not ARDUINO.is_file():
        pytest.skip(f"{ARDUINO} is not here (apt install arduino-core-avr)")
    text = ARDUINO.read_text()
    listed = {
        (int(vendor, 16), int(product, 16))
        for vendor, product in re.findall(r"^mega\.vid\.\d=(\w+)\nmega\.pid\.\d=(\w+)$", text, re.MULTILINE)
    }
    assert len(listed) == 6
    assert listed <= numbers_of("mega2560")


# Words of our titles that the list has as well; it lacks four of our numbers (2025-07).
WORDS = {
    0x0483: "ST-?LINK",
    0x10C4: "CP210x",
    0x1A86: "CH340",
    0x0403: "FT2232|FT232H|FT232|Bridge",
    0x067B: "PL2303",
    0x2341: "Mega 2560",
    0x2A03: "Mega 2560",
}


def test_names_are_those_of_the_public_list() -> None:
    path = next((each for each in USB_IDS if each.is_file()), None)
    if path is None:
        pytest.skip("usb.ids is not here (apt install usb.ids)")
    listed: dict[tuple[int, int], str] = {}
    vendor = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r"([0-9a-f]{4})  ", line):
            vendor = int(found[1], 16)
        elif found := re.match(r"\t([0-9a-f]{4})  (.*)", line):
            listed[vendor, int(found[1], 16)] = found[2]
    checked = 0
    for each in USB_IDENTITIES:
        name = listed.get((each.vendor, each.product))
        if name is not None:
            assert re.search(WORDS[each.vendor], name), (each.title, name)
            checked += 1
    assert checked >= 12
