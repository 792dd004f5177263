"""The wire: what requests and answers hold. Shared by the SDK and the server; one module a resource, loaded on demand."""
