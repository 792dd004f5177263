"""Who the client is: profiles and credentials."""
