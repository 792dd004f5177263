"""Clock, ids and settings: the floor everything stands on. Knows no domain."""
