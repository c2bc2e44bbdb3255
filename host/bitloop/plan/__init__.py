"""From a MODEL and what a device says about itself to the image that is sent to it."""

from bitloop.plan.image import ParsedImage, read_image, write_image
from bitloop.plan.memory import MemoryPlan
from bitloop.plan.planner import Operation, Plan, plan

__all__ = ["MemoryPlan", "Operation", "ParsedImage", "Plan", "plan", "read_image", "write_image"]
