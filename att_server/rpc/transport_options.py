"""Every option that gRPC serves with, and what each is against. Measured, not guessed.

Nothing here stops a flood of CONTINUATION frames, which comes before anybody is asked who
they are: docs/security.md says what does.
"""

from __future__ import annotations

from att_server.rpc.request_sizes import MAX_CHANGE_BYTES

MAX_ANSWER_BYTES = 4 << 20

_STREAMS = "grpc.max_concurrent_streams"
"""Bounds what one connection can open, and with it what a flood of calls that are taken
back at once costs the calls of others. gRPC clients queue calls above it without a word."""

_EVERYWHERE: tuple[tuple[str, int], ...] = (
    # A port belongs to one server; sharing it would hand calls, and tokens, to another.
    ("grpc.so_reuseport", 0),
    # Of each listener, so that a flood of one leaves the socket to its owner.
    ("grpc.max_allowed_incoming_connections", 512),
    # The most that any rpc takes; the boundary refuses what its own rpc does not. Never
    # without a bound: what was packed is unpacked up to it.
    ("grpc.max_receive_message_length", MAX_CHANGE_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    # Equal, because between the two gRPC refuses at random.
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 8192),
    # Who connects and says nothing is disconnected.
    ("grpc.server_handshake_timeout_ms", 5000),
    ("grpc.http2.settings_timeout", 5000),
    # Who was stopped, or lies behind a wire that is cut, is disconnected in half a
    # minute. It takes all three: the pings by which gRPC measures the connection have a
    # timeout of their own, a minute, and hold up the others.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Who answers pings and does not read loses its streams (`boundary.py`), and with its
    # connection what gRPC holds for them. Long after every wait of other peers.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 600_000),
    # Clients may check on an idle connection every 10 s.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)

SOCKET_OPTIONS = (
    # More than what one caller may have open (`limits.py`), which is told so. For all
    # that are above to be told it, gRPC must drop none by itself: it counts those that
    # have just ended as open, and drops at random from 1,000 that wait to be looked at.
    (_STREAMS, 2000),
    ("grpc.http.overload_protection", 0),
    ("grpc.server.max_pending_requests", 2000),
    *_EVERYWHERE,
)
"""Of the server behind the socket, whose peers are its own user."""

NETWORK_OPTIONS = (
    (_STREAMS, 100),
    *_EVERYWHERE,
)
"""Of the server behind the ports: another one, so that what is done to it, and what gRPC
sheds then, leaves the socket alone."""
