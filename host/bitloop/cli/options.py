"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|DIR",
        help="Data set: mnist, digits, or a directory that holds MNIST's files. Default: the one the network is for.",
        show_default=False,
    ),
]
SplitName = Annotated[
    str,
    typer.Option("--split", help="train, search, confirm or test; test opens the vault, and that is recorded."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="Only the first N images of the split.", show_default=False)
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Why the test split is opened; kept in the vault's log.", show_default=False),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", "-w", metavar="SPEC", help="Format of the weights, e.g. e4m3:pow2, int4:channel."),
]
Biases = Annotated[
    str | None,
    typer.Option(
        "--biases", "-b", metavar="SPEC", help="Format of the biases. Default: the weights' if a float, else fp32."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TENSOR=SPEC", help="Format of one tensor, e.g. dense1.weights=int4. Repeatable."),
]
Device = Annotated[
    str, typer.Option("--device", "-d", metavar="URL", help="Port or pyserial URL: /dev/ttyUSB0, COM5, sim://native.")
]
Placement = Annotated[
    str,
    typer.Option(
        "--placement",
        help="resident: weights on the device; stream: they travel with each batch of images; auto: where they must.",
    ),
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="Images the device holds at once: a batch, with streamed weights."),
]
Baud = Annotated[int, typer.Option("--baud", min=1, help="Bits a second of a serial port.")]
MaxBaud = Annotated[
    int,
    typer.Option(
        "--max-baud",
        min=0,
        help="Climb from --baud to the greatest rate up to this that line and device carry; 0: stay at --baud.",
    ),
]
Coded = Annotated[
    bool,
    typer.Option(
        "--coded/--no-coded", help="Compress pixels and weights on the line where that is shorter; nothing is lost."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, help="Seconds without progress until a device is given up.", show_default=False),
]
Record = Annotated[
    Path | None,
    typer.Option(
        "--record",
        metavar="FILE",
        help="Record all that crosses the line; --device replay://FILE gives it back without the device.",
        show_default=False,
    ),
]
PixelBits = Annotated[
    int | None,
    typer.Option(
        "--pixel-bits",
        min=1,
        max=8,
        help="Give device and host simulation pixels of N bits: fewer bytes for the line, but other images.",
        show_default=False,
    ),
]
Reconnect = Annotated[
    float | None,
    typer.Option(
        "--reconnect",
        min=0.0,
        metavar="SECONDS",
        help="Wait so long for a device that is lost in mid-run; 0: not at all. Default: 10, of simulated ones 3.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")]
