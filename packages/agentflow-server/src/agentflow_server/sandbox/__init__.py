"""Runs tool source that users send: in Monty by default, in a confined process where an admin allows it."""

from agentflow_server.sandbox.monty import MontySandbox
from agentflow_server.sandbox.port import (
    Limits,
    Sandbox,
    SandboxCrashed,
    SandboxError,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxRefused,
    SandboxResult,
    SandboxTimeout,
    SandboxToolError,
)
from agentflow_server.sandbox.process import ProcessSandbox
from agentflow_server.sandbox.signature import Signature

__all__ = [
    "Limits", "MontySandbox", "ProcessSandbox", "Sandbox", "SandboxCrashed", "SandboxError", "SandboxMemoryExceeded",
    "SandboxOutputExceeded", "SandboxRefused", "SandboxResult", "SandboxTimeout", "SandboxToolError", "Signature",
]  # fmt: skip
