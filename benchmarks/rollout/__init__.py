"""How often a rollout decides wrongly: simulated rollouts through the real decision function, and through its peers."""
