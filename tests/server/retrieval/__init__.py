"""Tests of what knows no resource: parse, chunk, embed, index, search."""
