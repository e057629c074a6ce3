"""Evaluation sets by name: every module of this folder may define some as SETS. They lie in wheels of the package
index, and nothing of them is in this repository.
"""
