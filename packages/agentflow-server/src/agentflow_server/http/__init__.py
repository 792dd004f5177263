"""The door: who calls, how errors look, how events are streamed, what is too much. Knows no resource."""
