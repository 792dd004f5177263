"""Generated from agentflow/resources/subagents.py by tools/sync_generator.py: do not edit.

`client.agents.subagents`: agents that other agents may call."""

from typing import Any

from agentflow._sync.pages import Page
from agentflow._sync.runs import Options, run_once, run_request, segment
from agentflow._sync.streams import Stream, new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.runs import RunResult
from agentflow.types.subagents import Subagent, SubagentAssignment, SubagentCreate, SubagentPage, SubagentUpdate


class Subagents:
    """Sub-agents of an agent. Each is an agent of its own, which its parents' models call by a tool."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def create(
        self, parent_id: str, *, name: str, description: str, idempotency_key: str | None = None, **settings: Any
    ) -> Subagent:
        """Add an agent that the parent may call.

        Args:
            description: what the parent's model reads to decide whether to call it.
            settings: `system_prompt`, `llm_config`, `enable_planning`, `enable_reflection`, `knowledge_bases`,
                `tool_assignments` (names), `background` (may be called without waiting), … as in `SubagentCreate`.

        Raises:
            NotFoundError: there is no such parent. ConflictError: the name is taken, or the chain would be too long.
            ValidationError: a setting does not hold.
        """
        body = SubagentCreate.model_validate({"name": name, "description": description, **settings}).wire()
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request("POST", _path(parent_id), body=body, headers=headers, repeatable=True)
        return self._transport.call(request, Subagent)

    def list(self, parent_id: str, *, limit: int = 50, offset: int = 0) -> Page[Subagent]:
        """A page of the agents the parent may call; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", _path(parent_id), query, repeatable=True), SubagentPage)

        def fetch(start: int) -> Page[Subagent]:
            return self.list(parent_id, limit=limit, offset=start)

        return Page(data, "subagents", fetch)

    def retrieve(self, parent_id: str, subagent_id: str) -> Subagent:
        """One sub-agent.

        Raises:
            NotFoundError: there is no such parent, or it has no such sub-agent.
        """
        return self._transport.call(Request("GET", _path(parent_id, subagent_id), repeatable=True), Subagent)

    def update(self, parent_id: str, subagent_id: str, **changes: Any) -> Subagent:
        """Change a sub-agent; what is left out stays, `llm_config` is merged field by field. Raises as `create`."""
        body = SubagentUpdate.model_validate(changes).wire()
        request = Request("PATCH", _path(parent_id, subagent_id), body=body, repeatable=True)
        return self._transport.call(request, Subagent)

    def delete(self, parent_id: str, subagent_id: str) -> None:
        """Remove a sub-agent for good, also from its other parents.

        Raises:
            NotFoundError: as `retrieve`. ConflictError: it belongs to the system.
        """
        self._transport.raw(Request("DELETE", _path(parent_id, subagent_id)))

    def assign(self, parent_id: str, subagent_id: str, *, background: bool = False) -> Subagent:
        """Let a parent call an agent that exists. Doing it again changes `background`.

        Args:
            background: the parent may call it without waiting.

        Raises:
            NotFoundError: one of them does not exist. ConflictError: they would call each other in a circle, or the
                chain would be too long.
        """
        body = SubagentAssignment(background=background).wire()
        request = Request("PUT", _path(parent_id, subagent_id, "/assignment"), body=body, repeatable=True)
        return self._transport.call(request, Subagent)

    def unassign(self, parent_id: str, subagent_id: str) -> None:
        """Take a sub-agent from a parent; it stays an agent. Raises as `retrieve`."""
        self._transport.raw(Request("DELETE", _path(parent_id, subagent_id, "/assignment")))

    def run(
        self,
        parent_id: str,
        subagent_id: str,
        *,
        message: str,
        options: Options = None,
        conversation_id: str | None = None,
        message_id: str | None = None,
        output_type: Any = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> RunResult:
        """Run a sub-agent itself, as the root of its run, and wait for its answer. Arguments as for `agents.run`."""
        request = run_request(
            _path(parent_id, subagent_id, "/run"),
            message,
            stream=False,
            options=options,
            conversation_id=conversation_id,
            message_id=message_id or idempotency_key,
            output_type=output_type,
            timeout=timeout,
        )
        return run_once(self._transport, request, output_type)

    def stream(
        self,
        parent_id: str,
        subagent_id: str,
        *,
        message: str,
        options: Options = None,
        conversation_id: str | None = None,
        message_id: str | None = None,
        output_type: Any = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> Stream:
        """Run a sub-agent itself and read its events as they happen. Arguments as for `agents.run`."""
        request = run_request(
            _path(parent_id, subagent_id, "/run"),
            message,
            stream=True,
            options=options,
            conversation_id=conversation_id,
            message_id=message_id or idempotency_key,
            output_type=output_type,
            timeout=timeout,
        )
        return Stream(self._transport, request, verbose=bool(request.body.get("verbose")))


def _path(parent_id: str, subagent_id: str | None = None, rest: str = "") -> str:
    base = f"/api/v1/agent/{segment(parent_id)}/subagents"
    return base if subagent_id is None else f"{base}/{segment(subagent_id)}{rest}"
