"""The contract of ATT: protobuf messages and gRPC services, for any client."""
