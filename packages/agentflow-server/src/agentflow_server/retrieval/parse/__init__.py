"""From a file to its text, with headings and tables, in a process of its own that has bounds."""

from agentflow_server.retrieval.parse.document import Block, Document, ParseError, ParseLimits
from agentflow_server.retrieval.parse.parser import Parser

__all__ = ["Block", "Document", "ParseError", "ParseLimits", "Parser"]
