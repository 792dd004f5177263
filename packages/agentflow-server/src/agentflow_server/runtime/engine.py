"""What a run needs of the server, handed from app.py to the runner in one piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow_server.eventlog import EventLog
from agentflow_server.eventlog.packing import Packer
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.gateway import Gateway
from agentflow_server.jobs import Worker
from agentflow_server.kit.clock import Clock
from agentflow_server.runtime.history import Histories
from agentflow_server.runtime.images import ImageSource
from agentflow_server.runtime.tools import ToolResolver
from agentflow_server.storage import Database, Tx

Follower = Callable[[Tx, RunHeader, dict[str, Any] | None], None]


@dataclass(slots=True)
class Engine:
    """The parts the runtime is made of.

    Attributes:
        followers: called inside the transaction that ends a run, with its header and its result (None if it failed):
            how rooms above the runtime learn of it without the runtime knowing them.
        images: where the images of stored messages are.
    """

    db: Database
    log: EventLog
    packer: Packer
    gateway: Gateway
    resolver: ToolResolver
    histories: Histories
    worker: Worker
    clock: Clock
    followers: Sequence[Follower] = field(default_factory=tuple[Follower, ...])
    images: ImageSource | None = None
