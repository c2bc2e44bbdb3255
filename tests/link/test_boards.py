"""The catalogue of boards: data that other parts stand on."""

import pytest
from serial import serial_for_url

from bitloop.boards import BOARDS, find_board
from bitloop.errors import UsageError

REAL = {
    "nucleo_f446re", "nucleo_f401re", "nucleo_f411re", "disco_f407vg", "bluepill_f103c8",
    "esp32dev", "esp32-s3-devkitc-1", "esp32-c3-devkitm-1",
}  # fmt: skip
EMULATED = {"stm32f405", "stm32f100", "rv32imc", "lx106", "mega2560"}


def test_names_are_there_and_unique():
    names = [board.name for board in BOARDS]
    assert len(set(names)) == len(names)
    assert set(names) == REAL | EMULATED | {"native"}
    assert {board.name for board in BOARDS if board.emulator} == EMULATED
    assert {board.name for board in BOARDS if not board.simulated} == REAL


def test_emulated_boards_have_urls_and_environments_of_their_own():
    for board in BOARDS:
        if board.emulator:
            assert board.url == f"qemu://{board.name}"
            assert board.environment.startswith("qemu_")
            assert board.emulator.package.startswith("qemu-system-")
        elif not board.simulated:
            assert board.environment == board.name


def test_memory_of_the_data_sheets():
    kilobytes = {"stm32f100": 8, "mega2560": 8, "bluepill_f103c8": 20, "nucleo_f401re": 96, "stm32f405": 128}
    assert {name: find_board(name).ram_bytes // 1024 for name in kilobytes} == kilobytes


def test_the_native_board_opens():
    assert serial_for_url(find_board("native").url, do_not_open=True).port == "sim://native"


def test_an_unknown_board_names_the_nearest():
    with pytest.raises(UsageError, match="there is no board 'nucleo_f446'; there are nucleo_f446re"):
        find_board("nucleo_f446")
