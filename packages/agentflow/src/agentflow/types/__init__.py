"""The wire: what requests and answers hold. Shared by the SDK and the server; a module a resource, loaded on demand."""
