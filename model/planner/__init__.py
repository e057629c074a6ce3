"""The planner: cost of a model before it exists (parameters, arithmetic, memory, time, money), from its configuration.

All but `step_measurement` and `machine_rates` is arithmetic. Sizes are bytes, times seconds, rates
per second. Start reading at `plan.py`.
"""
