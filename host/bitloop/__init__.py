"""bitloop: how few bits do a network's weights and biases need, and what does it then really do on the chip?

Importing the package registers ``sim://`` with pyserial, so that any ``serial.serial_for_url`` opens it.
"""

import serial

__version__ = "0.1.0"

_URL_PACKAGE = "bitloop.link.urls"
if _URL_PACKAGE not in serial.protocol_handler_packages:
    serial.protocol_handler_packages.append(_URL_PACKAGE)
