"""``bitloop devices``: where a device could be."""

from __future__ import annotations

from bitloop.cli import console, options


@console.handled
def devices(as_json: options.Json = False) -> None:
    """List the serial ports of this machine, and the simulated device."""
    from serial.tools import list_ports  # noqa: PLC0415 - slow on some systems

    found = [
        {"url": port.device, "description": port.description or "", "hardware": port.hwid or "", "simulated": False}
        for port in sorted(list_ports.comports(), key=lambda port: port.device)
    ]
    found.append(
        {
            "url": "sim://native",
            "description": "simulated device: the device core as a process of this machine",
            "hardware": "",
            "simulated": True,
        }
    )
    if as_json:
        console.print_json(found)
        return
    rows = [(str(each["url"]), str(each["description"]), str(each["hardware"])) for each in found]
    console.print_table("", ("device", "description", "hardware"), rows)
    if len(found) == 1:
        console.say("No serial port is there. Any other pyserial URL is a device too: socket://host:port, rfc2217://…")
