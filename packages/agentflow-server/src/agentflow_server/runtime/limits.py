"""Bounds of the run loop, in one place. Documented in docs/lifecycles/run.md."""

MAX_PARALLEL_TOOLS = 8
MAX_REPAIRS = 2
MAX_INTERRUPTIONS = 2
COMPACT_ABOVE = 0.8
KEEP_AFTER_COMPACTION = 0.4
SUMMARY_TOKENS = 1000
MAX_TOOL_CONTENT = 100_000
