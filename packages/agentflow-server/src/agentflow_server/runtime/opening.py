"""The first events of a run: the user's message, `start`, and what its plan has to tell.

Written when a run is accepted, or, if it had to wait for the run before it, when its turn has come: so a thread never
holds a message in the middle of another answer.
"""

from typing import Any

from agentflow_server.eventlog import Draft, PartDraft
from agentflow_server.gateway.messages import Message
from agentflow_server.kit.clock import Clock
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import draft


def opening(context: RunContext, clock: Clock) -> list[Draft]:
    """The events that begin the run."""
    run, plan = context.run, context.plan
    if plan.direct is not None:  # its `start` comes when the call may be executed
        return [draft(context, clock, "user", {"message_id": run.message_id, "text": plan.text})]
    start = {
        "name": plan.agent_name,
        "role": "agent" if run.is_root else "sub_agent",
        **run_ids(context),
        "model": plan.model,
    }
    kind = "user" if run.is_root else "sub_agent_request"
    return [
        draft(
            context,
            clock,
            "user",
            {"message_id": run.message_id, "text": plan.text},
            part=message_part(context, kind, plan.user, plan.text, visible=run.is_root),
        ),
        draft(context, clock, "start", start, metadata={"display_name": plan.agent_name}),
        *(draft(context, clock, notice.type, notice.content) for notice in plan.notices),
    ]


def run_ids(context: RunContext) -> dict[str, Any]:
    """What the first event of a run says of where it belongs."""
    run = context.run
    return {
        "run_id": run.id,
        "conversation_id": run.conversation_id,
        "message_id": run.message_id,
        "agent_id": run.agent_id,
    }


def message_part(context: RunContext, kind: str, message: Message, text: str, *, visible: bool) -> PartDraft:
    """A message as a durable part of the run's thread. `text` is what a person reads of it."""
    run = context.run
    return PartDraft(kind, context.thread, run.id, run.message_id, visible, text, message.model_dump_json())
