"""The wire: the only server code that knows gRPC and the messages of `att.v1`."""
