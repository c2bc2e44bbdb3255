"""``bitloop firmware``: build the firmware of boards, and flash it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options
from bitloop.errors import DisagreementError, LinkError, PortError, ToolchainError, UsageError

if TYPE_CHECKING:
    from bitloop.boards import Board
    from bitloop.firmware.memory import StaticMemory
    from bitloop.firmware.tool import Line

app = typer.Typer(help="Build the firmware of boards, and flash it.", no_args_is_help=True)

_PORT_COMES_BACK_S = 10.0


@app.command("build")
@console.handled
def build(
    boards: Annotated[
        list[str] | None,
        typer.Argument(metavar="BOARD...", help="Boards, or their environments in platformio.ini.", show_default=False),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All boards that can be built on this machine.")] = False,
    as_json: options.Json = False,
) -> None:
    """Build firmware that is not up to date, and show what it takes of each chip."""
    from bitloop.firmware.find import find_firmware_board  # noqa: PLC0415 - beside the rest

    if everything == bool(boards):
        raise UsageError("name the boards to build, or say --all")
    wanted = _all_that_can_be_built() if everything else [find_firmware_board(name) for name in boards or ()]
    built: list[tuple[Board, Path, StaticMemory | None]] = []
    failed: list[ToolchainError] = []
    for board in wanted:
        try:
            built.append(_build(board))
        except ToolchainError as error:  # noqa: PERF203 - a build takes seconds
            if not everything:
                raise
            failed.append(error)
    if as_json:
        console.print_json([_document(*each) for each in built])
    else:
        _print_sizes(built)
    if failed:
        raise ToolchainError("\n".join(map(str, failed)))


@app.command("flash")
@console.handled
def flash(
    board: Annotated[str, typer.Argument(metavar="BOARD", help="Board, or its environment in platformio.ini.")],
    *,
    port: Annotated[
        str | None,
        typer.Option("--port", "-p", help="Serial port of the board. Default: the only one.", show_default=False),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="stlink, or serial: a Blue Pill's own bootloader. Default: the usual one.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Ask the board afterwards whether it runs what was written.")] = True,
    baud: options.Baud = 115200,
) -> None:
    """Build a board's firmware where it is not up to date, write it into the chip, and see that it answers."""
    from bitloop.firmware import flash as flashing  # noqa: PLC0415 - pyserial
    from bitloop.firmware.find import find_firmware_board  # noqa: PLC0415 - beside the rest
    from bitloop.link.transport import SerialTransport  # noqa: PLC0415 - pyserial

    found = find_firmware_board(board)
    way = flashing.choose_way(found, port=port, protocol=protocol)
    if way.over_serial and way.port is not None:
        # The tools tell little of what is wrong with a port, and avrdude 7.1 never ends at one that is not there.
        SerialTransport(way.port, baud=baud).close()
    if way.protocol != flashing.PLATFORMIO:
        _build(found)  # so that what is shown from here on are the tool's words
    image = flashing.flash(way, each_line=console.say)
    console.print_text(f"{found.name} was flashed through {way.title}: {_shown(image)}")
    if not check:
        return
    if way.port is None:
        console.warn(f"not checked, for no port is known that {found.name} would answer at; name it with --port")
        return
    _check(found, way.port, baud)


def _all_that_can_be_built() -> list[Board]:
    from bitloop.boards import BOARDS  # noqa: PLC0415 - beside the rest
    from bitloop.firmware import find  # noqa: PLC0415 - beside the rest

    there = find.environments()
    boards = []
    for board in BOARDS:
        if board.environment not in there:
            continue
        missing = find.missing_to_build(board.environment)
        if missing:
            console.warn(f"{board.name} is left out, missing: {'; '.join(map(str, missing))}; {find.SETUP} installs it")
        elif not find.is_local(board.environment):
            console.warn(
                f"{board.name} is left out, its platform comes from PlatformIO's registry; name it to build it"
            )
        else:
            boards.append(board)
    return boards


def _build(board: Board) -> tuple[Board, Path, StaticMemory | None]:
    """Build, and read the sizes; None where another linker script than ours divides the memory."""
    from bitloop.firmware import find  # noqa: PLC0415 - beside the rest
    from bitloop.firmware.build import build_firmware, is_current, refuse_if_missing  # noqa: PLC0415 - PlatformIO
    from bitloop.firmware.memory import static_memory  # noqa: PLC0415 - pyelftools

    local = find.is_local(board.environment)
    verbose = logging.getLogger("bitloop").isEnabledFor(logging.INFO)
    each_line: Line | None = console.say if verbose or not local else None
    if not is_current(board.environment):
        refuse_if_missing(board.environment)
        console.say(f"building {board.name}")
    elf = build_firmware(board.environment, each_line=each_line)
    return board, elf, static_memory(elf) if local else None


def _document(board: Board, elf: Path, memory: StaticMemory | None) -> dict[str, object]:
    image = elf.with_suffix(".bin")
    return {
        "board": board.name,
        "environment": board.environment,
        "elf": str(elf),
        "bin": str(image) if image.is_file() else None,
        "flash_bytes": memory.flash_bytes if memory else None,
        "static_bytes": memory.static_bytes if memory else None,
        "stack_bytes": memory.stack_bytes if memory else None,
        "arena_bytes": memory.arena_bytes if memory else None,
        "chip_flash_bytes": board.flash_bytes or None,
        "chip_ram_bytes": board.ram_bytes,
    }


def _print_sizes(built: list[tuple[Board, Path, StaticMemory | None]]) -> None:
    rows = []
    for board, _, memory in built:
        sizes = (memory.flash_bytes, memory.static_bytes, memory.stack_bytes, memory.arena_bytes) if memory else ()
        cells = [f"{size:,}" for size in sizes] or ["–"] * 4
        rows.append((board.name, cells[0], f"{board.flash_bytes:,}" if board.flash_bytes else "–", *cells[1:]))
    if rows:
        heads = ("board", "flash", "of", "static RAM", "stack", "arena")
        console.print_table("firmware, in bytes", heads, rows, right=(1, 2, 3, 4, 5))
    for board, elf, _ in built:
        image = elf.with_suffix(".bin")
        console.print_text(f"{board.name}: {_shown(elf)}{', firmware.bin beside it' if image.is_file() else ''}")


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _check(board: Board, port: str, baud: int) -> None:
    from bitloop.link.session import Session  # noqa: PLC0415 - numpy
    from bitloop.native.build import firmware_hash  # noqa: PLC0415 - beside the rest

    expected = firmware_hash(board.port)
    deadline = time.monotonic() + _PORT_COMES_BACK_S
    while True:
        try:
            with Session(port, baud=baud) as session:
                info = session.connect()
            break
        except PortError:
            if time.monotonic() >= deadline:  # a chip with USB of its own takes its port away while it is reset
                raise
            time.sleep(0.5)
        except LinkError as error:
            raise type(error)(f"{board.name} was flashed, but does not answer at {port}: {error}") from error
    if (info.board, info.firmware_hash) != (board.name, expected):
        raise DisagreementError(
            f"at {port} answers {info.board} with firmware {info.firmware_hash or 'without hash'}, flashed was "
            f"{board.name} with {expected}: is it the port of the board that was flashed?"
        )
    console.print_text(f"it answers at {port}: {info.board}, firmware {info.firmware_version}, {expected[:12]}…")
