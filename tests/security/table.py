"""Every route of the API, and who may use it: one row a route. A route without a row fails the suite.

`Row(scope)`: the scope that a machine needs (None: it is enough to be known). `ids`: path parameters that are ids, and
whether they belong to the whole `tenant` or to one `user`; `MAKERS` makes one. `admin`: people who administer only.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass(frozen=True)
class Row:
    """Who may use a route, and what makes a request of it well formed."""

    scope: str | None = None
    ids: dict[str, str] = field(default_factory=dict[str, str])
    admin: bool = False
    public: bool = False
    body: Any = None
    query: dict[str, str] = field(default_factory=dict[str, str])


PUBLIC = Row(public=True)
ADMIN = Row(admin=True)
AGENT = {"agent_id": "tenant"}
SUBAGENT = {"agent_id": "tenant", "subagent_id": "tenant"}
CONVERSATION = {"conversation_id": "user"}
RUN = {"run_id": "user"}
TASK = {"task_id": "user"}
ARTIFACT = {"artifact_id": "user"}
BATCH = {"batch_id": "user"}
NAME = {"name": "tenant"}
BASE = {"kb_id": "tenant"}
BASE_FILE = {"kb_id": "tenant", "file_id": "tenant"}
AGENT_BASE = {"agent_id": "tenant", "kb_id": "tenant"}
TOOL = {"agent_id": "tenant", "tool_identifier": "tenant"}
ATTACHMENT = {"attachment_id": "user"}
APPROVAL = {"approval_id": "user"}
QUESTION = {"question_id": "user"}
SOURCE = "def add(a: int) -> int:\n    return a\n"

TABLE: dict[str, Row] = {
    "GET /": PUBLIC,
    "GET /health": PUBLIC,
    "GET /ready": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /api/v1/system": PUBLIC,
    "GET /api/v1/system/me": Row(),
    "GET /api/v1/system/audit": ADMIN,
    "GET /api/v1/agents": Row(),
    "POST /api/v1/agents": Row("agents", body={"name": "Made"}),
    "GET /api/v1/agents/stats": Row(),
    "GET /api/v1/agent/{agent_id}": Row(None, AGENT),
    "PATCH /api/v1/agent/{agent_id}": Row("agents", AGENT, body={"description": "x"}),
    "DELETE /api/v1/agent/{agent_id}": Row("agents", AGENT),
    "GET /api/v1/agent/{agent_id}/config": Row(None, AGENT),
    "PATCH /api/v1/agent/{agent_id}/config": Row("agents", AGENT, body={"description": "x"}),
    "POST /api/v1/agent/{agent_id}/chat": Row("conversations", AGENT, body={"message": "hi", "stream": False}),
    "GET /api/v1/agent/{agent_id}/subagents": Row("subagents", AGENT),
    "POST /api/v1/agent/{agent_id}/subagents": Row("subagents", AGENT, body={"name": "S", "description": "x"}),
    "GET /api/v1/agent/{agent_id}/subagents/{subagent_id}": Row("subagents", SUBAGENT),
    "PATCH /api/v1/agent/{agent_id}/subagents/{subagent_id}": Row("subagents", SUBAGENT, body={"description": "x"}),
    "DELETE /api/v1/agent/{agent_id}/subagents/{subagent_id}": Row("subagents", SUBAGENT),
    "PUT /api/v1/agent/{agent_id}/subagents/{subagent_id}/assignment": Row("subagents", SUBAGENT, body={}),
    "DELETE /api/v1/agent/{agent_id}/subagents/{subagent_id}/assignment": Row("subagents", SUBAGENT),
    "POST /api/v1/agent/{agent_id}/subagents/{subagent_id}/run": Row(
        "conversations", SUBAGENT, body={"message": "hi", "stream": False}
    ),
    "GET /api/v1/background": Row("background"),
    "GET /api/v1/background/{task_id}": Row("background", TASK),
    "POST /api/v1/background/{task_id}/cancel": Row("background", TASK),
    "POST /api/v1/background/{task_id}/messages": Row("background", TASK, body={"message": "hi"}),
    "POST /api/v1/cancellations/runs/{run_id}": Row("cancellations", RUN),
    "POST /api/v1/cancellations/calls/{call_id}": Row("cancellations", {"call_id": "user"}),
    "POST /api/v1/cancellations/conversations/{conversation_id}/messages/{message_id}": Row(
        "cancellations", {"conversation_id": "user", "message_id": "user"}
    ),
    "GET /api/v1/conversations": Row("conversations"),
    "POST /api/v1/conversations": Row("conversations", body={"agent_id": "00000000-0000-0000-0000-000000000000"}),
    "GET /api/v1/conversations/search": Row("conversations", query={"query": "x"}),
    "GET /api/v1/conversations/{conversation_id}": Row("conversations", CONVERSATION),
    "PATCH /api/v1/conversations/{conversation_id}": Row("conversations", CONVERSATION, body={"title": "x"}),
    "DELETE /api/v1/conversations/{conversation_id}": Row("conversations", CONVERSATION),
    "GET /api/v1/conversations/{conversation_id}/messages": Row("conversations", CONVERSATION),
    "POST /api/v1/conversations/{conversation_id}/resume": Row("conversations", CONVERSATION),
    "GET /api/v1/conversations/{conversation_id}/timeline": Row("conversations", CONVERSATION),
    "POST /api/v1/conversations/{conversation_id}/title/generate": Row("conversations", CONVERSATION),
    "GET /api/v1/conversations/{conversation_id}/watch": Row("conversations", CONVERSATION),
    "GET /api/v1/runs/{run_id}": Row("conversations", RUN),
    "GET /api/v1/runs/{run_id}/stream": Row("conversations", RUN),
    "GET /api/v1/conversations/{conversation_id}/cached-results": Row("cached_results"),
    "GET /api/v1/conversations/{conversation_id}/cached-results/{cache_id}": Row("cached_results"),
    "POST /api/v1/agent/{agent_id}/chat/preview": Row("conversations", AGENT, body={"message": "hi"}),
    "GET /api/v1/agent/{agent_id}/context-blocks": Row(None, AGENT),
    "GET /api/v1/prompt-blocks": Row("prompt_blocks"),
    "POST /api/v1/prompt-blocks": Row("prompt_blocks", body={}),
    "GET /api/v1/prompt-blocks/{name}": Row("prompt_blocks", NAME),
    "PATCH /api/v1/prompt-blocks/{name}": Row("prompt_blocks", NAME, body={"description": "x"}),
    "DELETE /api/v1/prompt-blocks/{name}": Row("prompt_blocks", NAME),
    "POST /api/v1/prompt-blocks/{name}/invalidate-cache": Row("prompt_blocks", NAME),
    "POST /api/v1/prompt-blocks/{name}/preview": Row("prompt_blocks", NAME, body={}),
    "GET /api/v1/agent/{agent_id}/knowledge-bases": Row("knowledge_bases", AGENT),
    "POST /api/v1/agent/{agent_id}/knowledge-bases/search": Row("knowledge_bases", AGENT, body={"query": "x"}),
    "PUT /api/v1/agent/{agent_id}/knowledge-bases/{kb_id}": Row("knowledge_bases", AGENT_BASE),
    "DELETE /api/v1/agent/{agent_id}/knowledge-bases/{kb_id}": Row("knowledge_bases", AGENT_BASE),
    "GET /api/v1/knowledge-bases": Row("knowledge_bases"),
    "POST /api/v1/knowledge-bases": Row("knowledge_bases"),
    "POST /api/v1/knowledge-bases/create-from-url": Row("knowledge_bases"),
    "POST /api/v1/knowledge-bases/jobs/{job_id}/cancel": Row("knowledge_bases"),
    "GET /api/v1/knowledge-bases/{kb_id}": Row("knowledge_bases", BASE),
    "PATCH /api/v1/knowledge-bases/{kb_id}": Row("knowledge_bases", BASE, body={"description": "x"}),
    "DELETE /api/v1/knowledge-bases/{kb_id}": Row("knowledge_bases", BASE),
    "GET /api/v1/knowledge-bases/{kb_id}/documents": Row("knowledge_bases", BASE),
    "POST /api/v1/knowledge-bases/{kb_id}/documents": Row("knowledge_bases"),
    "DELETE /api/v1/knowledge-bases/{kb_id}/documents/{file_id}": Row("knowledge_bases", BASE_FILE),
    "GET /api/v1/knowledge-bases/{kb_id}/documents/{file_id}/chunks": Row("knowledge_bases", BASE_FILE),
    "POST /api/v1/knowledge-bases/{kb_id}/refresh": Row("knowledge_bases", BASE),
    "POST /api/v1/knowledge-bases/{kb_id}/search": Row("knowledge_bases", BASE, body={"query": "x"}),
    "GET /api/v1/tools": Row("tools"),
    "GET /api/v1/agent/{agent_id}/mcp-servers": Row("tools", AGENT),
    "POST /api/v1/agent/{agent_id}/mcp-servers": Row("tools", body={}),
    "DELETE /api/v1/agent/{agent_id}/mcp-servers/{server_id}": Row("tools"),
    "POST /api/v1/agent/{agent_id}/mcp-servers/{server_id}/refresh": Row("tools"),
    "GET /api/v1/agent/{agent_id}/tools": Row("tools", AGENT),
    "POST /api/v1/agent/{agent_id}/tools": Row(
        "tools", AGENT, body={"name": "plus", "description": "x", "function_code": SOURCE}
    ),
    "POST /api/v1/agent/{agent_id}/tools/openapi": Row("tools", body={}),
    "POST /api/v1/agent/{agent_id}/tools/test": Row("tools", body={}),
    "GET /api/v1/agent/{agent_id}/tools/{tool_identifier}": Row("tools", TOOL),
    "PATCH /api/v1/agent/{agent_id}/tools/{tool_identifier}": Row("tools", TOOL, body={"description": "x"}),
    "DELETE /api/v1/agent/{agent_id}/tools/{tool_identifier}": Row("tools", TOOL),
    "PUT /api/v1/agent/{agent_id}/tools/{tool_identifier}/approval": Row("tools", TOOL, body={"enabled": True}),
    "PUT /api/v1/agent/{agent_id}/tools/{tool_identifier}/assignment": Row("tools", TOOL, body={}),
    "DELETE /api/v1/agent/{agent_id}/tools/{tool_identifier}/assignment": Row("tools", TOOL),
    "POST /api/v1/agent/{agent_id}/tools/{tool_id}/run": Row(
        "conversations", {"agent_id": "tenant", "tool_id": "tenant"}, body={"arguments": {"a": 1}, "stream": False}
    ),
    "GET /api/v1/approvals": Row("approvals"),
    "GET /api/v1/approvals/pending": Row("approvals"),
    "GET /api/v1/approvals/stats": Row("approvals"),
    "GET /api/v1/approvals/summary": Row("approvals"),
    "POST /api/v1/approvals/bulk-respond": Row("approvals", body={}),
    "POST /api/v1/approvals/cleanup": Row("approvals"),
    "GET /api/v1/approvals/{approval_id}": Row("approvals", APPROVAL),
    "POST /api/v1/approvals/{approval_id}/cancel": Row("approvals", APPROVAL),
    "POST /api/v1/approvals/{approval_id}/respond": Row("approvals", APPROVAL, body={"status": "denied"}),
    "GET /api/v1/questions": Row("questions"),
    "GET /api/v1/questions/{question_id}": Row("questions", QUESTION),
    "POST /api/v1/questions/{question_id}/cancel": Row("questions", QUESTION),
    "POST /api/v1/questions/{question_id}/respond": Row("questions", QUESTION, body={"answers": {"a": "b"}}),
    "GET /api/v1/attachments": Row("attachments"),
    "POST /api/v1/attachments": Row("attachments"),
    "GET /api/v1/attachments/{attachment_id}": Row("attachments", ATTACHMENT),
    "GET /api/v1/attachments/{attachment_id}/content": Row("attachments", ATTACHMENT),
    "DELETE /api/v1/attachments/{attachment_id}": Row("attachments", ATTACHMENT),
    "GET /api/v1/artifacts": Row("artifacts"),
    "GET /api/v1/artifacts/types": Row("artifacts"),
    "PUT /api/v1/artifacts/types/{name}": Row("artifacts", body={}),
    "DELETE /api/v1/artifacts/types/{name}": Row("artifacts"),
    "GET /api/v1/artifacts/{artifact_id}": Row("artifacts", ARTIFACT),
    "POST /api/v1/artifacts/{artifact_id}/actions/{action}": Row("artifacts", ARTIFACT, body={}),
    "PATCH /api/v1/artifacts/{artifact_id}/content": Row("artifacts", ARTIFACT, body={"content": {"subject": "x"}}),
    "GET /api/v1/artifacts/{artifact_id}/download": Row("artifacts", ARTIFACT),
    "PATCH /api/v1/artifacts/{artifact_id}/state": Row("artifacts", ARTIFACT, body={"state": {"note": "x"}}),
    "GET /api/v1/artifacts/{artifact_id}/versions": Row("artifacts", ARTIFACT),
    "GET /api/v1/batches": Row("batches"),
    "POST /api/v1/batches": Row("batches", body={}),
    "POST /api/v1/files": Row("batches"),
    "GET /api/v1/batches/{batch_id}": Row("batches", BATCH),
    "DELETE /api/v1/batches/{batch_id}": Row("batches", BATCH),
    "POST /api/v1/batches/{batch_id}/cancel": Row("batches", BATCH),
    "GET /api/v1/batches/{batch_id}/events": Row("batches", BATCH),
    "GET /api/v1/batches/{batch_id}/output": Row("batches", BATCH),
    "POST /api/v1/batches/{batch_id}/retry": Row("batches", BATCH),
    "POST /api/v1/completions/enrich": Row("completions", body={}),
    "POST /api/v1/completions/extract": Row("completions", body={}),
    "POST /api/v1/completions/label": Row("completions", body={}),
    "POST /api/v1/completions/run": Row("completions", body={}),
    "POST /api/v1/completions/summarize": Row("completions", body={}),
    "GET /api/v1/memory": Row("memory"),
    "DELETE /api/v1/memory": Row("memory"),
    "GET /api/v1/memory/export": Row("memory"),
    "POST /api/v1/memory/recall": Row("memory", body={"query": "x"}),
    "GET /api/v1/memory/{block_type}": Row("memory"),
    "PUT /api/v1/memory/{block_type}": Row("memory", body={"content": "x"}),
    "DELETE /api/v1/memory/{block_type}": Row("memory"),
    "GET /api/v1/models": Row(),
    "GET /api/v1/models/{model_id}": Row(),
    "GET /api/v1/settings/llm": Row(),
    "PUT /api/v1/settings/llm": Row("models", body={}),
    "GET /api/v1/admin/models/policy": ADMIN,
    "PATCH /api/v1/admin/models/policy": Row(admin=True, body={}),
    "GET /api/v1/admin/models/keys": ADMIN,
    "PUT /api/v1/admin/models/keys/{provider}": Row(admin=True, body={}),
    "POST /api/v1/admin/models/keys/{provider}/test": ADMIN,
    "DELETE /api/v1/admin/models/keys/{provider}": ADMIN,
    "GET /api/v1/usage/summary": Row(),
    "GET /api/v1/usage/calls": Row(),
    "GET /api/v1/usage/budget": Row(),
    "GET /api/v1/admin/usage/summary": ADMIN,
    "GET /api/v1/admin/usage/calls": ADMIN,
    "GET /api/v1/admin/budget": ADMIN,
    "PUT /api/v1/admin/budget": Row(admin=True, body={}),
    "GET /api/v1/admin/budget/users": ADMIN,
    "PUT /api/v1/admin/budget/users": Row(admin=True, body={}),
}


def _made(answer: httpx2.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


def _agent(owner: httpx2.Client) -> dict[str, str]:
    made = _made(owner.post("/api/v1/agents", json={"name": f"A{uuid.uuid4().hex[:8]}"}))
    return {"agent_id": made["id"]}


def _subagent(owner: httpx2.Client) -> dict[str, str]:
    agent = _agent(owner)
    body = {"name": f"S{uuid.uuid4().hex[:8]}", "description": "x"}
    made = _made(owner.post(f"/api/v1/agent/{agent['agent_id']}/subagents", json=body))
    return {**agent, "subagent_id": made["id"]}


def _run(owner: httpx2.Client) -> dict[str, str]:
    body = {"message": "[[say hello]]", "stream": False}
    made = _made(owner.post(f"/api/v1/agent/{_agent(owner)['agent_id']}/chat", json=body))
    return {name: made[name] for name in ("run_id", "call_id", "conversation_id", "message_id")}


def _task(owner: httpx2.Client) -> dict[str, str]:
    agent, name = _agent(owner), f"digger{uuid.uuid4().hex[:8]}"
    path = f"/api/v1/agent/{agent['agent_id']}"
    _made(owner.post(f"{path}/subagents", json={"name": name, "description": "x", "background": True}))
    message = f'[[tool {name} {{"message": "[[say x]]", "background": true}}]] [[say begun]]'
    made = _made(owner.post(f"{path}/chat", json={"message": message, "stream": False}))
    return {"task_id": made["background_tasks"][0]["task_id"]}


def _artifact(owner: httpx2.Client) -> dict[str, str]:
    body = {"name": f"A{uuid.uuid4().hex[:8]}", "artifact_types": ["*"]}
    agent = _made(owner.post("/api/v1/agents", json=body))["id"]
    call = '{"type": "email_draft", "title": "x", "content": {"to": ["a@example.org"], "subject": "x", "body": "x"}}'
    chat = {"message": f"[[tool create_artifact {call}]]", "stream": False}
    made = _made(owner.post(f"/api/v1/agent/{agent}/chat", json=chat))
    query = {"conversation_id": made["conversation_id"]}
    return {"artifact_id": _made(owner.get("/api/v1/artifacts", params=query))["artifacts"][0]["id"]}


def _batch(owner: httpx2.Client) -> dict[str, str]:
    body = {"operation": "label", "items": [{"content": "x"}], "categories": ["a", "b"]}
    return {"batch_id": _made(owner.post("/api/v1/batches", json=body))["id"]}


def _prompt_block(owner: httpx2.Client) -> dict[str, str]:
    name = f"block_{uuid.uuid4().hex[:8]}"
    _made(owner.post("/api/v1/prompt-blocks", json={"name": name, "description": "x", "body": "x"}))
    return {"name": name}


def _base(owner: httpx2.Client) -> dict[str, str]:
    files = {"files": ("a.txt", b"hello")}
    made = _made(owner.post("/api/v1/knowledge-bases", data={"name": uuid.uuid4().hex}, files=files))
    listed = _made(owner.get(f"/api/v1/knowledge-bases/{made['id']}/documents"))
    return {**_agent(owner), "kb_id": made["id"], "file_id": listed["files"][0]["id"]}


def _tool(owner: httpx2.Client, **settings: Any) -> dict[str, str]:
    agent = _agent(owner)
    body = {"name": f"t{uuid.uuid4().hex[:8]}", "description": "x", "function_code": SOURCE, **settings}
    made = _made(owner.post(f"/api/v1/agent/{agent['agent_id']}/tools", json=body))
    return {**agent, "tool_identifier": made["id"], "tool_id": made["id"], "tool_name": made["name"]}


def _waiting(owner: httpx2.Client, agent_id: str, message: str, event: str) -> str:
    """The id in the event that a run waits behind."""
    path = f"/api/v1/agent/{agent_id}/chat"
    with owner.stream("POST", path, json={"message": message}) as answer:
        for line in answer.iter_lines():
            if f'"{event}"' in line:
                return json.loads(line.removeprefix("data:"))["content"]["id"]
    raise AssertionError(f"the run did not come to {event}")


def _approval(owner: httpx2.Client) -> dict[str, str]:
    made = _tool(owner, require_approval=True)
    call = f'[[tool {made["tool_name"]} {{"a": 1}}]]'
    return {"approval_id": _waiting(owner, made["agent_id"], call, "approval_required")}


def _question(owner: httpx2.Client) -> dict[str, str]:
    agent = _made(owner.post("/api/v1/agents", json={"name": f"A{uuid.uuid4().hex[:8]}", "tools": ["ask_user"]}))["id"]
    call = '[[tool ask_user {"questions": [{"id": "a", "question": "Which?"}]}]]'
    return {"question_id": _waiting(owner, agent, call, "question_required")}


def _attachment(owner: httpx2.Client) -> dict[str, str]:
    files = {"file": ("a.txt", uuid.uuid4().hex.encode())}
    made = _made(owner.post("/api/v1/attachments", files=files))
    return {"attachment_id": made["id"]}


MAKERS: dict[str, Callable[[httpx2.Client], dict[str, str]]] = {
    "agent_id": _agent,
    "subagent_id": _subagent,
    "run_id": _run,
    "call_id": _run,
    "conversation_id": _run,
    "message_id": _run,
    "task_id": _task,
    "artifact_id": _artifact,
    "batch_id": _batch,
    "name": _prompt_block,
    "kb_id": _base,
    "file_id": _base,
    "tool_identifier": _tool,
    "tool_id": _tool,
    "approval_id": _approval,
    "question_id": _question,
    "attachment_id": _attachment,
}
