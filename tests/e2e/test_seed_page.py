"""The code of the SDK page, as printed, against a real backend."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentflow.cli.main import root
from agentflow_server.testing import LocalServer, ScriptedModel, local_server
from click.testing import CliRunner

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[LocalServer]:
    """A backend whose `openai` is a model of ours."""
    with local_server(providers={"openai": ScriptedModel()}) as running:
        yield running


@pytest.fixture(autouse=True)
def profiles(server: LocalServer, tmp_path: Path) -> None:
    """`agentflow login` for both names the page uses."""
    for name in ("prod", "local"):
        arguments = ["login", "--endpoint", server.endpoint, "--profile", name, "--method", "dev"]
        done = CliRunner().invoke(root, arguments)
        assert done.exit_code == 0, done.output


def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    from agentflow import AgentFlow

    with AgentFlow.from_profile("prod") as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(agent_id=agent_id, message="What meetings do I have this week?")
        print(result.text)
    assert capsys.readouterr().out.strip()


async def test_async_mirror(capsys: pytest.CaptureFixture[str]) -> None:
    from agentflow import AsyncAgentFlow

    async with AsyncAgentFlow.from_profile("prod") as client:
        agent_id = (await client.agents.by_name("MainAgent")).id
        result = await client.agents.run(agent_id=agent_id, message="What meetings do I have this week?")
        print(result.text)
    assert capsys.readouterr().out.strip()


def test_explicit_credentials(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentflow import AgentFlow

    client = AgentFlow(
        endpoint="https://your-instance.agentflow.ai",
        access_token="<agentflow-access-token>",
    )
    assert client.endpoint == "https://your-instance.agentflow.ai"
    monkeypatch.setenv("AGENTFLOW_ENDPOINT", server.endpoint)
    with AgentFlow() as from_environment:
        assert from_environment.system.health().status == "ok"


async def test_running_agents_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    from agentflow import AsyncAgentFlow, InlinePromptBlock, MemoryPolicy, RetrievalOptions, RunOptions
    from agentflow.errors import ValidationError

    async def printed() -> Any:
        async with AsyncAgentFlow.from_profile("local") as client:
            agent_id = (await client.agents.by_name("MainAgent")).id

            result = await client.agents.run(
                agent_id=agent_id,
                message="Summarize the Acme account",
                options=RunOptions(
                    verbose=True,
                    model="openai/gpt-5",
                    temperature=0.2,
                    max_tokens=4000,
                    knowledge_bases=["kb_product_docs"],
                    retrieval_options=RetrievalOptions(top_k=8, search_type="hybrid"),
                    memory_policy=MemoryPolicy(archival_mode="auto", archival_limit=5),
                    context_refs=[{"system": "crm", "type": "account", "id": "001ABC123"}],
                    prompt_blocks=[
                        InlinePromptBlock(
                            name="selected_account",
                            body="Acme Corp, ARR $120k, renewal in 31 days",
                            tags=["selection", "context"],
                        )
                    ],
                ),
            )
            print(result.text)
            return result

    with pytest.raises(ValidationError, match="kb_product_docs"):
        await printed()
    async with AsyncAgentFlow.from_profile("local") as client:
        await client.knowledge_bases.create_from_files(
            id="kb_product_docs", name="Product docs", files=[("acme.txt", b"Acme has ten seats.")]
        )
    result = await printed()
    assert capsys.readouterr().out.strip() == result.text
    assert result.metrics.model == "openai/gpt-5"
    assert [citation["source_file"] for citation in result.citations] == ["acme.txt"]
    assert result.events
    assert result.events[-1]["type"] == "end"


async def test_streaming(capsys: pytest.CaptureFixture[str]) -> None:
    from agentflow import AsyncAgentFlow
    from agentflow.events import FinalResponse, TextDelta

    async with AsyncAgentFlow.from_profile("local") as client:
        agent_id = (await client.agents.by_name("MainAgent")).id

        async for event in client.agents.stream(agent_id=agent_id, message="Analyze our Q3 pipeline"):
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
            elif isinstance(event, FinalResponse):
                print("|" + event.text)
        streamed, final = capsys.readouterr().out.strip().split("|")
        assert streamed == final

        async for event in client.agents.stream(agent_id=agent_id, message="Analyze our Q3 pipeline"):
            print(event.type, event.raw)
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith("start {")
        assert printed[-1].startswith("end {")


async def test_conversations() -> None:
    from agentflow import AsyncAgentFlow

    async with AsyncAgentFlow.from_profile("local") as client:
        agent_id = (await client.agents.by_name("MainAgent")).id
        conversation = await client.conversations.create(agent_id=agent_id)

        first = await conversation.send("Show me the pipeline")
        second = await conversation.send("Now filter to deals over $100K")
        assert first.conversation_id == second.conversation_id == conversation.id
        detail = await conversation.refresh()
        assert [message.role for message in detail.messages] == ["user", "assistant"] * 2
        assert detail.title == "Show me the pipeline"


def test_conversations_synchronously() -> None:
    from agentflow import AgentFlow

    with AgentFlow.from_profile("local") as client:
        agent_id = client.agents.by_name("MainAgent").id
        conversation = client.conversations.create(agent_id=agent_id)
        conversation.send("My project is called Heron.")
        assert "Heron" in conversation.send("What is my project called?").text
        events = list(conversation.stream("[[words 3]]"))
        assert events[-1].content["text"] == "word1 word2 word3"
