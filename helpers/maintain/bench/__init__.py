"""The engines on the same work: seconds, memory, the least a round can cost, and how reliably they learn."""
