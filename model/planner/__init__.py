"""What a model costs before it exists: parameters, arithmetic, memory, time and money, from the configuration alone.

All but `measure` is arithmetic. Sizes are bytes, times seconds, rates per second. `plan.py` is the way in.
"""
