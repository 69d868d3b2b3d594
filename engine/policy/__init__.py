"""Decisions as pure functions: numbers in, a decision with its reason out. No I/O, no clock."""
