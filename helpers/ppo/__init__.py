"""Proximal policy optimisation with trlX's interface.

To read in this order: config, policy, generate (sampling), rollout, loss, trainer. Then what makes it practical: fast and head
(the same numbers for less), memory, processes, run and checkpoint, train (the call).

Knows torch and transformers, and nothing of notebooks, widgets or scale.
"""
