"""What the runs room does with a conversation in its own transaction: is it the caller's; note that it is used."""

from agentflow.types.runs import RunOptions

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.resources.conversations import store
from agentflow_server.resources.conversations.service import derived_title, unknown
from agentflow_server.storage import Tx


def require_own(tx: Tx, conversation_id: str, user_id: str) -> None:
    """Refuse a conversation that somebody else has; one that nobody has is fine.

    Raises:
        NotFoundError: it is somebody else's.
    """
    if store.owner(tx, conversation_id) not in (None, user_id):
        raise unknown(conversation_id)


def use(tx: Tx, run: RunHeader, *, text: str, source: RunOptions, messages: int = 1) -> None:
    """Make the run's conversation if there is none, name it after its first message, and count the message.

    Args:
        messages: how many the run begins with: none, if it is a direct run of a tool.

    Raises:
        NotFoundError: it is somebody else's.
    """
    record = store.by_id(tx, run.conversation_id, run.user_id)
    if record is None:
        new = store.ConversationRecord(
            run.conversation_id, run.user_id, run.agent_id, derived_title(text), source.source, source.source_id,
            source.source_metadata or {}, messages, run.created_at, run.created_at,
        )  # fmt: skip
        if store.insert(tx, new):
            return
        record = store.by_id(tx, run.conversation_id, run.user_id)  # made since we looked
        if record is None:
            raise unknown(run.conversation_id)
    if record.title is None and messages:
        store.name(tx, record.id, derived_title(text))
    store.touch(tx, run.tenant, record.id, messages=messages, now=run.created_at)
