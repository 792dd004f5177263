"""The `agentflow` command. Loads only what the command at hand needs."""

from agentflow.cli.main import main

__all__ = ["main"]
