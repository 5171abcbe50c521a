"""Gradient routing for GRPO: split each gradient along a hack basis, and quarantine what the basis explains."""
