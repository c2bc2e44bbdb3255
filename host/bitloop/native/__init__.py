"""The device's C core, compiled for this machine: a fast exact evaluator and the simulated device's program."""

from bitloop.native.build import firmware_hash, shared_library, simulator_binary
from bitloop.native.core import validate_image
from bitloop.native.evaluator import Evaluator
from bitloop.native.paths import device_dir

__all__ = ["Evaluator", "device_dir", "firmware_hash", "shared_library", "simulator_binary", "validate_image"]
