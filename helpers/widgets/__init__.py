"""Widgets to look at rewards, prompts, samples and runs. They know plain functions and plain data, and no torch."""
