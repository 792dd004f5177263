"""How a call of another system fails."""


class ConnectorError(Exception):
    """The other system gave no usable answer.

    Args:
        code: names the kind of failure. transient: it may go better the next time.
    """

    def __init__(self, code: str, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.transient = transient
