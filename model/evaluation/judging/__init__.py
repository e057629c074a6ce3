"""Judges, their agreement with people, rates corrected for their errors, and preferences."""
