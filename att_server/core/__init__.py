"""The rules: no gRPC, no protobuf, no files, no processes."""
