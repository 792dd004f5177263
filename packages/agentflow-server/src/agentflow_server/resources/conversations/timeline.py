"""Rebuilds what happened in a conversation from its log: the tree of executions and the parts in their order.

A part of this room's service; reads the log and nothing else.
"""

import json
from typing import Any

from agentflow.types.conversations import Timeline, TimelineCall, TimelinePart

from agentflow_server.eventlog import parts_of
from agentflow_server.eventlog.tail import milestones
from agentflow_server.kit.clock import to_datetime
from agentflow_server.storage import Tx


def timeline(tx: Tx, conversation_id: str) -> Timeline:
    """The timeline of a conversation. `tx` is bound to the tenant."""
    calls: dict[str, TimelineCall] = {}
    roots: list[TimelineCall] = []
    for event in milestones(tx, conversation_id):
        body: dict[str, Any] = json.loads(event.data)
        content: dict[str, Any] = body["content"]
        if event.type == "start":
            call = _begun(body, content)
            calls[call.call_id] = call
            parent = calls.get(call.parent_call_id or "")
            (parent.calls if parent else roots).append(call)
        elif (call := calls.get(event.call_id)) is not None:
            _end(call, event.type, body, content)
    parts = [
        TimelinePart(
            seq=part.seq,
            type=part.kind,
            call_id=part.call_id,
            parent_call_id=part.parent_call_id,
            root_call_id=part.root_call_id,
            message_id=part.message_id,
            run_id=part.run_id,
            visible=part.visible,
            content=json.loads(part.data),
            timestamp=to_datetime(part.created_at),
        )
        for part in parts_of(tx, conversation_id)
    ]
    return Timeline(conversation_id=conversation_id, calls=roots, parts=parts)


def _begun(body: dict[str, Any], content: dict[str, Any]) -> TimelineCall:
    return TimelineCall(
        call_id=body["call_id"],
        parent_call_id=body["parent_call_id"],
        run_id=content.get("run_id"),
        name=content.get("name"),
        role=content.get("role", "agent"),
        status="running",
        input=content.get("input"),
        started_at=body["timestamp"],
    )


def _end(call: TimelineCall, type_: str, body: dict[str, Any], content: dict[str, Any]) -> None:
    call.ended_at = TimelineCall.model_validate({**call.model_dump(), "ended_at": body["timestamp"]}).ended_at
    if type_ == "error" or content.get("is_error"):
        call.status = "failed"
    else:
        call.status = "cancelled" if content.get("finish_reason") == "cancelled" else "completed"
    call.result = content.get("message") if type_ == "error" else content.get("result", content.get("text"))
