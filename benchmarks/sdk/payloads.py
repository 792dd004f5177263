"""Canned payloads of our API for the client bench: paste them into its `fixtures`, and route `/chat` to them."""

import json

WORD = "word "


def _j(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_AF_IDS = {
    "call_id": "01a20dcb-c4e3-7e9d-8a04-9772483f562c",
    "parent_call_id": None,
    "root_call_id": "01a20dcb-c4e3-7e9d-8a04-9772483f562c",
}
_AF_RESULT = {
    "text": "Hello! How can I help you today? " * 8,
    "output": None,
    "conversation_id": "c",
    "message_id": "m",
    "run_id": "01a20dcb-c4e3-7340-9efc-311639b9675c",
    "call_id": _AF_IDS["call_id"],
    "finish_reason": "stop",
    "usage": {
        "input_tokens": 19,
        "cached_input_tokens": 0,
        "output_tokens": 72,
        "reasoning_tokens": 0,
        "requests": 1,
        "total_tokens": 91,
    },
    "cost": 0.0,
    "metrics": {
        "duration_ms": 8.5,
        "time_to_first_token_ms": 4.1,
        "model": "x/y",
        "turns": 1,
        "tool_calls": 0,
        "background_tasks": [],
    },
    "background_tasks": [],
    "citations": [],
    "events": None,
}


def unary() -> bytes:
    return _j(_AF_RESULT)


def events(n: int) -> list[bytes]:
    tail = {"timestamp": "2026-11-24T13:43:07.762453Z", "metadata": None}
    start = {"name": "MainAgent", "role": "agent", "run_id": _AF_RESULT["run_id"], "conversation_id": "c"}

    def one(seq, type_, content):
        return (
            b"id: %d\ndata: " % seq + _j({"seq": seq, "type": type_, **_AF_IDS, "content": content, **tail}) + b"\n\n"
        )

    out = [b"retry: 5000\n\n", one(0, "start", start)]
    out += [one(i + 1, "delta", WORD) for i in range(n)]
    return [*out, one(n + 1, "end", _AF_RESULT)]
