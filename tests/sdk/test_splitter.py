"""The splitter against a plain reading of the standard, for any stream in any pieces."""

from agentflow.transport.sse import Splitter
from hypothesis import given, settings
from hypothesis import strategies as st

LINES = st.one_of(
    st.sampled_from([b"data: a", b"data:b", b"data:  c", b"data", b"data:", b"", b"", b": note", b"id: 7", b"id:8"]),
    st.sampled_from([b"id", b"id:  9", b"event: x", b"retry: 5", b"nonsense", b"data: \xc3\xa4"]),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"")),
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def plain(stream: bytes) -> list[tuple[bytes | None, bytes]]:
    """WHATWG HTML, section 9.2.6, word by word."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[tuple[bytes | None, bytes]] = []
    data: list[bytes] = []
    last: bytes | None = None
    for line in text.split(b"\n")[:-1]:
        if not line:
            if data:
                events.append((last, b"\n".join(data)))
            data = []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"id" and b"\0" not in value:
            last = value
    return events


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(LINES, ENDS), max_size=30), st.booleans(), st.lists(st.integers(1, 9), min_size=1, max_size=20)
)
def test_any_stream_in_any_pieces(lines: list[tuple[bytes, bytes]], bom: bool, sizes: list[int]) -> None:
    stream = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines) + b"\n\n"
    splitter = Splitter()
    events: list[tuple[bytes | None, bytes]] = []
    position = 0
    number = 0
    while position < len(stream):
        size = sizes[number % len(sizes)]
        events += splitter.feed(stream[position : position + size])
        position += size
        number += 1
    assert events == plain(stream)


def test_cost_is_linear() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: ") == []
    for _ in range(50_000):
        assert splitter.feed(b"x" * 20) == []
    assert len(splitter.feed(b"\n\n")[0][1]) == 1_000_000
