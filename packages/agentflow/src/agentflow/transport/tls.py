"""One TLS context for all clients of the process, made when it is first needed: it costs tens of milliseconds."""

import ssl
import threading

_lock = threading.Lock()
_context: ssl.SSLContext | None = None


def shared_context() -> ssl.SSLContext:
    """The process's TLS context, with the system's certificates."""
    global _context
    with _lock:
        if _context is None:
            _context = ssl.create_default_context()
        return _context
