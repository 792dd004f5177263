"""How a call travels: described, sent, retried, decoded. Knows no resource."""
