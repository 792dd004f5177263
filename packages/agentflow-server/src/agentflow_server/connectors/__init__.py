"""Calls other systems for tools: HTTP requests, OpenAPI documents, MCP servers. Knows no resource and no database."""
