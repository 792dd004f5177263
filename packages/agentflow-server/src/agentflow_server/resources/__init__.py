"""The rooms: one folder a resource."""
