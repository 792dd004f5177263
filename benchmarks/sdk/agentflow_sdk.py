"""AgentFlow for the client bench. `patch()` adds its canned payloads to the bench's `fixtures` and `server`."""

REQUIRES: list[str] = []
IMPORT = "import agentflow; agentflow.AgentFlow"
FAMILY = "agentflow"


def client(base):
    import agentflow

    return agentflow.AgentFlow(endpoint=base, access_token="sk-test")


def aclient(base):
    import agentflow

    return agentflow.AsyncAgentFlow(endpoint=base, access_token="sk-test")


def unary(c):
    return c.agents.run(agent_id="agent-1", message="Say hello there!").text


async def aunary(c):
    return (await c.agents.run(agent_id="agent-1", message="Say hello there!")).text


def stream(c):
    from agentflow.events import TextDelta

    n = 0
    for event in c.agents.stream(agent_id="agent-1", message="Say hello there!"):
        if isinstance(event, TextDelta):
            n += len(event.text)
    return n


async def astream(c):
    from agentflow.events import TextDelta

    n = 0
    async for event in c.agents.stream(agent_id="agent-1", message="Say hello there!"):
        if isinstance(event, TextDelta):
            n += len(event.text)
    return n


def close(c):
    c.close()


async def aclose(c):
    await c.aclose()
