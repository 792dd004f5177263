"""The AgentFlow backend."""
