"""One conversation with everything an agent can do, through the public SDK: sub-agents side by side, a gated MCP tool
that is approved after a restart, an artifact, background work collected on the next turn, and the timeline of it all.
"""

import json
import sys
from pathlib import Path
from typing import Any

from agentflow.events import ApprovalRequired, FinalResponse, SubAgentFinished, ToolFinished
from agentflow_server.testing import local_server

MCP_SERVER = Path(__file__).parents[1] / "server/mcp_server.py"


def call(tool: str, **arguments: Any) -> str:
    return f"[[tool {tool} {json.dumps(arguments)}]]"


def test_everything_in_one_conversation(tmp_path: Path) -> None:
    with local_server(data=tmp_path, allow_mcp_commands=True) as server, server.client() as client:
        settings: dict[str, Any] = {"llm_config": {"model": "agentflow/scripted"}, "artifact_types": ["task"]}
        main = client.agents.create(name="Lead", **settings).id
        for name in ("Reader", "Writer"):
            client.agents.subagents.create(main, name=name, description=f"A {name}.", background=True)
        client.agents.tools.attach_mcp(
            main, name="sums", command=sys.executable, args=[str(MCP_SERVER)], tools=["add"], require_approval=True
        )
        conversation = client.conversations.create(agent_id=main)
        both = f"{call('reader', message='[[say read]]')} {call('writer', message='[[say written]]')}"
        stream = conversation.stream(
            f"{both} {call('add', left=1, right=2)} [[say done]]",
            options={"verbose": True},
        )
        for event in stream:
            if isinstance(event, ApprovalRequired):
                assert (event.tool_name, event.arguments) == ("add", {"left": 1, "right": 2})
                break
        run_id = stream.run_id or ""
    with local_server(data=tmp_path, allow_mcp_commands=True) as server, server.client() as client:
        [pending] = client.approvals.list().items
        client.approvals.respond(pending.id, "approved", modified_arguments={"left": 20, "right": 22})
        events = list(client.runs.stream(run_id, verbose=True))
        assert isinstance(events[-1], FinalResponse)
        assert events[-1].text == "done"
        assert len([event for event in events if isinstance(event, SubAgentFinished)]) == 2
        results = {event.name: event.result for event in events if isinstance(event, ToolFinished)}
        assert results["add"] == {"result": 42}
        conversation = client.conversations.resume(conversation.id)
        task = {"type": "task", "title": "Call Ann", "content": {"title": "Call Ann"}}
        made = conversation.send(f"{call('create_artifact', **task)} [[say made]]")
        assert made.text == "made"
        [artifact] = client.artifacts.list(conversation.id).items
        assert client.artifacts.act(artifact.id, "confirm").state["status"] == "confirmed"
        begun = conversation.send(f"{call('reader', message='[[say found it]]', background=True)} [[say begun]]")
        [handle] = begun.background_tasks
        assert client.background.wait(handle["task_id"], timeout=20).status == "completed"
        collected = conversation.send(call("get_background_sub_agent_result", task_id=handle["task_id"]))
        assert "found it" in collected.text
        timeline = conversation.timeline()
        told = json.dumps(timeline.model_dump(mode="json"))
        for trace in ("20", "22", "42", artifact.id, handle["task_id"], "found it", "Reader", "Writer"):
            assert trace in told, trace
        assert [one.type for one in timeline.parts].count("user") == 4
        assert len(timeline.calls) == 4
