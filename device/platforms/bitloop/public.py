"""Extra script of platformio.ini for the boards that PlatformIO's public platforms build with an Arduino core.

It gives our sources, and nothing else, what builder/main.py gives them on the local platform: headers, flags, identity.
"""

import sys
from pathlib import Path

Import("env")  # noqa: F821 - PlatformIO's way to hand it over

device = Path(env.subst("$PROJECT_SRC_DIR"))  # noqa: F821
sys.dont_write_bytecode = True
sys.path.insert(0, str(device / "platforms" / "bitloop"))

import identity  # noqa: E402

PORT = "arduino"

firmware_hash, firmware_version = identity.identity_defines(device, PORT)
env.Append(  # noqa: F821
    SRC_BUILD_FLAGS=[
        "-ffp-contract=off",
        *(f'-I"{folder}"' for folder in identity.include_dirs(device, PORT)),
        f"-D{firmware_hash[0]}={firmware_hash[1]}",
        f"-D{firmware_version[0]}=\\\"{firmware_version[1]}\\\"",
        f"-DBL_BOARD={env.subst('$PIOENV')}",  # noqa: F821
    ]
)
