"""A run: plan, loop, step, tools, control. The only place that appends to the event log."""
