"""What a model costs before it exists: parameters, arithmetic, memory, time and money, from the configuration alone.

All but `measure` is arithmetic. Sizes are bytes, times seconds, rates per second.
"""

from model.budget.flops import Flops, count_flops
from model.budget.kv_cache import cache_bytes, cache_sizes
from model.budget.layout import Layout, check_layout
from model.budget.memory import DeviceMemory, device_memory
from model.budget.parameters import Parameters, count_parameters
from model.budget.plan import Plan, plan
from model.budget.settings import PlanConfig, read_plan_settings

__all__ = [
    "DeviceMemory",
    "Flops",
    "Layout",
    "Parameters",
    "Plan",
    "PlanConfig",
    "cache_bytes",
    "cache_sizes",
    "check_layout",
    "count_flops",
    "count_parameters",
    "device_memory",
    "plan",
    "read_plan_settings",
]
