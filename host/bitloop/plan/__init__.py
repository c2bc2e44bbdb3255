"""From a MODEL and what a device says about itself to the image that is sent to it."""

from bitloop.plan.image import ParsedImage, read_image, write_image
from bitloop.plan.memory import MemoryPlan
from bitloop.plan.planner import PLACEMENTS, Operation, PlacementKind, Plan, StreamedWeights, plan

__all__ = [
    "PLACEMENTS",
    "MemoryPlan",
    "Operation",
    "ParsedImage",
    "PlacementKind",
    "Plan",
    "StreamedWeights",
    "plan",
    "read_image",
    "write_image",
]
