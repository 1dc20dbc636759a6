"""A server on the network: TLS, certificates of clients, and who calls by which."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no types

import att_client
from att_client import Config
from att_server.adapters.identities import TomlIdentities
from att_server.app import serving
from att_server.core.errors import Reason, RefusalReason, StartRefused
from att_server.core.identity import Role
from att_server.core.listeners import NetworkTerms, TcpListener, TlsFiles
from att_server.core.tokens import TokenManager
from att_server.rpc.boundary import Boundary
from att_server.rpc.limits import Limits
from att_server.rpc.tls import ServerTls
from att_server.testing import FakeClock, MemoryStateStore, fake_adapters
from att_server.testing.journal import MemoryJournal
from att_server.testing.tokens import MemoryTokens
from tests.certificates import Authority, Files
from tests.rpc.conftest import METHODS, Wire, bearer, refusal
from tests.server_process import PATIENCE, ServerProcess

ALICE = "spiffe://att/alice"
LOOPBACK = TcpListener(host="127.0.0.1", port=0)


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-net-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place)


class Network:
    """A server over fakes with one TCP listener. target: as clients name it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.clock = FakeClock()
        self.kept = MemoryTokens()
        self.tokens = TokenManager(tokens=self.kept, events=MemoryStateStore(), clock=self.clock)
        self.target = ""

    @asynccontextmanager
    async def serve(
        self, tls: TlsFiles | None = None, *, no_auth: bool = False
    ) -> AsyncIterator[str]:
        store = MemoryStateStore()
        adapters = fake_adapters(
            store=store,
            journal=MemoryJournal(store, self.clock),
            tokens=self.kept,
            clock=self.clock,
        )
        async with serving(
            adapters,
            socket_path=self.place / "att.sock",
            state_dir=self.place,
            epoch=1,
            instance_id="x",
            environ={},
            network=NetworkTerms(listeners=(LOOPBACK,), tls=tls, no_auth=no_auth, allow_root=True),
            certificates=TomlIdentities(self.place, self.clock),
            limits=Limits(refusals=1000),
        ) as targets:
            _, self.target = targets
            yield self.target

    async def token(self, role: Role = Role.OPERATOR, **given: object) -> str:
        _, secret = await self.tokens.create(f"t-{role}", role, principal="", **given)  # type: ignore[arg-type]  # of any kind
        return secret.reveal()

    def settings(self, text: str) -> None:
        path = self.place / "settings.toml"
        path.touch(mode=0o600)
        path.write_text(text)


@pytest.fixture
def network(place: Path) -> Network:
    return Network(place)


def tls_files(files: Files, client_ca: Path | None = None) -> TlsFiles:
    return TlsFiles(certificate=files.certificate, key=files.key, client_ca=client_ca)


def client(target: str, **given: object) -> AbstractAsyncContextManager[att_client.Client]:
    config = replace(Config(target=target), timeout=timedelta(seconds=PATIENCE), **given)  # type: ignore[arg-type]  # of any kind
    return att_client.connect(config=config)


async def principal(target: str, **given: object) -> str:
    async with client(target, **given) as att:
        return (await att.server.info()).principal


async def test_a_token_over_tls_says_who_calls_and_nothing_else_does(
    network: Network, authority: Authority
) -> None:
    token = await network.token()
    async with network.serve(tls_files(authority.issue("server"))) as target:
        assert not target.startswith("tcp:")
        who = await principal(target, token=token, ca_file=authority.file)
        assert who == "token:t-operator"
        with pytest.raises(att_client.UnauthenticatedError):
            await principal(target, ca_file=authority.file)
        with pytest.raises(att_client.UnauthenticatedError):
            await principal(target, ca_file=authority.file, token=f"{token[:-1]}-")
        # The socket beside it is its owner's as ever.
        assert (await principal(f"unix:{network.place}/att.sock")).startswith("local:")


async def test_a_server_that_is_not_who_it_says_gets_no_token(
    network: Network, authority: Authority, place: Path
) -> None:
    token = await network.token()
    other = Authority(place, "other")
    async with network.serve(tls_files(authority.issue("server", hosts=("192.0.2.1",)))) as target:
        for ca_file in (authority.file, other.file, None):
            with pytest.raises(att_client.NotReachableError) as error:
                await principal(target, token=token, ca_file=ca_file)
            assert "ATT_CA_FILE" in error.value.message
            assert token not in error.value.message


async def test_old_versions_of_tls_and_clear_text_are_refused(
    network: Network, authority: Authority
) -> None:
    await network.token()
    async with network.serve(tls_files(authority.issue("server"))) as target:
        host, _, port = target.rpartition(":")
        context = ssl.create_default_context(cafile=str(authority.file))
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, int(port), ssl=context)
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await Wire(channel, Boundary(new_error_id=str)).unary("GetServerInfo")
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_says_who_calls_by_its_uri(
    network: Network, authority: Authority
) -> None:
    network.settings(
        f'[identities."{ALICE}"]\nrole = "viewer"\nprojects = ["web"]\n'
        '[identities."spiffe://att/bot"]\nrole = "admin"\nowner = "bob"\n'
    )
    alice = authority.issue("alice", uri=ALICE)
    bot = authority.issue("bot", uri="spiffe://att/bot")
    stranger = authority.issue("stranger", uri=ALICE + "/evil")
    server = tls_files(authority.issue("server"), client_ca=authority.file)

    def with_cert(files: Files) -> dict[str, object]:
        pair = {"cert_file": files.certificate, "key_file": files.key}
        return {"ca_file": authority.file, **pair}

    async with network.serve(server) as target:
        assert await principal(target, **with_cert(alice)) == f"cert:{ALICE}"
        assert await principal(target, **with_cert(bot)) == "token:bob"
        with pytest.raises(att_client.PermissionDeniedError, match="identities"):
            await principal(target, **with_cert(stranger))
        async with client(target, **with_cert(alice)) as att:
            with pytest.raises(att_client.PermissionDeniedError):
                await att.runtimes.start("web")
            with pytest.raises(att_client.ProjectNotFoundError):
                await att.projects.get("other")
        # Without a certificate there is no connection, whatever the token.
        token = await network.token(Role.ADMIN)
        with pytest.raises(att_client.NotReachableError, match="ATT_CERT_FILE"):
            await principal(target, ca_file=authority.file, token=token)
        # With one that is known, a token may do no more than it may.
        async with client(target, token=token, **with_cert(alice)) as att:
            assert (await att.server.info()).principal == "token:t-admin"
            with pytest.raises(att_client.PermissionDeniedError):
                await att.runtimes.start("web")
        assert await principal(target, token=token, **with_cert(stranger)) == "token:t-admin"


async def test_an_identity_that_is_removed_ends_its_streams_and_a_slip_lets_nobody_in(
    network: Network, authority: Authority
) -> None:
    network.settings(f'[identities."{ALICE}"]\nrole = "viewer"\n')
    alice = authority.issue("alice", uri=ALICE)
    server = tls_files(authority.issue("server"), client_ca=authority.file)
    files = {"ca_file": authority.file, "cert_file": alice.certificate, "key_file": alice.key}
    async with network.serve(server) as target, client(target, **files) as att:
        watching = asyncio.ensure_future(anext(aiter(att.events.watch())))
        for text, kind in (
            ("", att_client.PermissionDeniedError),
            (f'[identities."{ALICE}"]\nrole = "king"\n', att_client.AttError),
        ):
            network.settings(text)
            network.clock.advance(timedelta(seconds=1))
            with pytest.raises(kind):
                await att.server.info()
        with pytest.raises(att_client.AttError):
            await asyncio.wait_for(watching, PATIENCE)


async def test_renewed_certificates_are_served_without_a_restart_and_bad_ones_are_not(
    network: Network, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    token = await network.token()
    files = authority.issue("server")

    async def served() -> str:
        context = ssl.create_default_context(cafile=str(authority.file))
        host, _, port = network.target.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        found = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        writer.close()
        return str(found)

    async with network.serve(tls_files(files)) as target:
        first = await served()
        authority.issue("server")
        second = await served()
        assert second != first
        assert await principal(target, token=token, ca_file=authority.file) == "token:t-operator"
        with caplog.at_level(logging.ERROR):
            files.certificate.write_text("nonsense")
            assert await served() == second
            authority.issue("server")
            files.key.chmod(0o644)
            assert await served() == second
        assert "TLS_FILE" in caplog.text or "not used" in caplog.text
        authority.issue("server")
        assert await served() not in (first, second)


async def test_a_client_whose_certificate_is_renewed_goes_on_with_the_new_one(
    network: Network, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    alice = authority.issue("client", uri=ALICE)
    given = {"ca_file": authority.file, "cert_file": alice.certificate, "key_file": alice.key}
    network.settings(
        f'[identities."{ALICE}"]\nrole = "viewer"\n[identities."{ALICE}-renewed"]\nrole = "viewer"'
    )
    async with (
        network.serve(tls_files(authority.issue("server"), authority.file)) as target,
        client(target, **given) as att,
    ):
        follower = aiter(att.events.watch(cursor=0))
        await anext(follower)
        assert (await att.server.info()).principal == f"cert:{ALICE}"
        authority.issue("client", uri=f"{ALICE}-renewed")
        assert (await att.server.info()).principal == f"cert:{ALICE}-renewed"
        with caplog.at_level(logging.WARNING):
            alice.certificate.write_text("nonsense")
            assert (await att.server.info()).principal == f"cert:{ALICE}-renewed"
        assert "not used" in caplog.text
        # What was open before is not ended by it.
        async with client(f"unix:{network.place}/att.sock") as owner:
            await owner.projects.create("web", path="/tmp")
        async for event in follower:
            if event.event_type == "project.created":
                break


def test_files_that_do_not_fit_or_that_others_may_read_are_refused(
    authority: Authority, place: Path
) -> None:
    files, other = authority.issue("server"), authority.issue("other")
    good = tls_files(files)
    for wrong in (
        replace(good, key=other.key),
        replace(good, certificate=place / "missing.pem"),
        replace(good, client_ca=files.key),
        replace(good, key=place),
    ):
        with pytest.raises(StartRefused) as refused:
            ServerTls(wrong)
        assert refused.value.reason is RefusalReason.TLS_FILE_INVALID
    files.key.chmod(0o640)
    with pytest.raises(StartRefused) as refused:
        ServerTls(good)
    assert refused.value.reason is RefusalReason.INSECURE_KEY_FILE


async def test_the_loopback_without_anything_is_a_viewer_in_clear_text_and_no_more(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        async with network.serve(no_auth=True) as target:
            assert target.startswith("tcp:127.0.0.1:")
            async with client(target) as att:
                assert (await att.server.info()).principal == "loopback"
                with pytest.raises(att_client.PermissionDeniedError):
                    await att.projects.create("web", path="/tmp")
            # A token in clear text is not sent by us.
            with pytest.raises(att_client.ConfigInvalidError, match="clear text"):
                client(target, token="att_x")
    assert "--insecure-loopback-no-auth" in caplog.text


async def test_a_stranger_learns_that_the_server_serves_and_nothing_more(network: Network) -> None:
    token = await network.token(Role.VIEWER)
    async with (
        network.serve() as target,
        grpc.aio.insecure_channel(target.removeprefix("tcp:")) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        wire = Wire(channel, Boundary(new_error_id=str))
        reflect = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        unknown = ("/att.v1.ProjectService/__class__", "/no.Such/Method", "/att.v1.Nobody/../X")
        for path in (reflect, "/grpc.health.v1.Health/Watch", *unknown):
            assert (await refusal(wire.raw(path))).reason == Reason.UNAUTHENTICATED, path
        for rpc in METHODS:
            assert (await refusal(wire.call(rpc))).reason == Reason.UNAUTHENTICATED, rpc
        for path in unknown:
            call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
            refused = await refusal(call(b"", metadata=bearer(token)))
            assert refused.reason == Reason.NOT_IMPLEMENTED
            assert refused.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_that_another_has_is_refused(network: Network) -> None:
    await network.token()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        terms = NetworkTerms(listeners=(TcpListener(host="127.0.0.1", port=port),), allow_root=True)
        with pytest.raises(StartRefused) as refused:
            async with serving(
                fake_adapters(tokens=network.kept, clock=network.clock),
                socket_path=network.place / "att.sock",
                state_dir=network.place,
                epoch=1,
                instance_id="x",
                environ={},
                network=terms,
            ):
                pass
    assert refused.value.reason is RefusalReason.LISTENER_NOT_ALLOWED


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "att_server", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def test_the_program_refuses_and_serves_what_the_table_says(
    place: Path, authority: Authority
) -> None:
    state = place / "s"
    root = ["--allow-root"] if os.geteuid() == 0 else []
    serve = ("serve", "--state-dir", state, *root, "--listen")
    refused = run(*serve, "0.0.0.0:0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("att: TLS_REQUIRED: ")
    assert "--tls-cert" in refused.stderr
    refused = run(*serve, "127.0.0.1:0")
    assert (refused.returncode, refused.stderr.split()[1]) == (2, "AUTH_REQUIRED:")
    assert not state.exists()
    assert run("init", "--state-dir", state, "--json").returncode == 0
    for each in ("admin", "approver"):
        assert run("token", "revoke", "--state-dir", state, each).returncode == 0
    refused = run(*serve, "127.0.0.1:0")
    assert (refused.returncode, refused.stderr.split()[1]) == (2, "AUTH_REQUIRED:")
    token = place / "t.token"
    made = run("token", "create", "--state-dir", state, "--role", "viewer", "--out", token)
    assert made.returncode == 0, made.stderr
    server = authority.issue("server")
    options = (*root, "--tls-cert", server.certificate, "--tls-key", server.key)
    listen = ("--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0")
    process = ServerProcess(state, *map(str, (*options, *listen)))
    with process:
        targets = process.ready.removeprefix("att: ready on ").split(", ")
        assert targets[0] == process.target
        for target in targets[1:3]:
            address = target.replace("0.0.0.0", "127.0.0.1")
            config = Config.from_env(
                {"ATT_TOKEN_FILE": str(token), "ATT_CA_FILE": str(authority.file)}, target=address
            )
            async with att_client.connect(config=config) as att:
                assert (await att.server.info()).principal.startswith("token:viewer-")
                with pytest.raises(att_client.PermissionDeniedError) as denied:
                    await att.runtimes.stop("web")
                assert denied.value.metadata == {"required_role": "operator"}


async def test_a_client_watches_more_than_one_connection_takes(network: Network) -> None:
    async with network.serve(no_auth=True) as target, client(target) as att:
        watches = [aiter(att.events.watch(cursor=0)) for _ in range(130)]
        await asyncio.wait_for(asyncio.gather(*map(anext, watches)), PATIENCE)
        assert await att.server.info()
