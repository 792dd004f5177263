"""From files to the right passages: parse, chunk, embed, index, search. Knows no resource.

Import its modules: each loads what it needs, so that the process that reads files stays small.
"""
