"""Proximal policy optimisation with trlX's interface: config, policy, rollout, loss, trainer, checkpoint.

Knows torch and transformers, and nothing of notebooks, widgets or scale.
"""
