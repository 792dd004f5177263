"""Cancellations on the wire."""

from agentflow.types.base import ResponseModel


class Cancellation(ResponseModel):
    """What became of a wish to cancel.

    Attributes:
        cancelled: the run had not ended, and is being stopped. status: of the run when it was asked.
    """

    cancelled: bool
    run_id: str
    status: str
