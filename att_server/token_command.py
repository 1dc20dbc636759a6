"""`att init` and `att token`: their arguments and words. What they do is in `tokens.py`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from att_server.config import resolve_state_dir
from att_server.core.identity import Role, Token
from att_server.core.tokens import DEFAULT_LIFETIME, DEFAULT_OVERLAP, PREFIX

if TYPE_CHECKING:
    from att_server import tokens

STATE_DIR_HELP = "default: ATT_STATE_DIR, else as XDG"
_JSON_HELP = "print the outcome as JSON"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

Task = Callable[[], None]


def task(words: Sequence[str]) -> tuple[Task, bool]:
    """What `init …` or `token …` asks for, and whether it is to be told as JSON.

    The task raises TokenError, StartRefused and AttError. Wrong arguments end the
    process, as argparse does it.
    """
    given = _parser().parse_args(words)
    work: Callable[[argparse.Namespace], None] = given.work
    return (lambda: work(given)), given.json


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--state-dir", metavar="DIR", help=STATE_DIR_HELP)
    shared.add_argument("--json", action="store_true", help=_JSON_HELP)
    parser = argparse.ArgumentParser(prog="att")
    commands = parser.add_subparsers(required=True)

    words = "Makes a state directory and its first tokens, admin and approver, and shows each once."
    init = commands.add_parser("init", parents=[shared], description=words)
    init.add_argument(
        "--output", metavar="DIR", help="write admin.token and approver.token there (mode 0600)"
    )
    init.add_argument(
        "--self",
        dest="own",
        action="store_true",
        help="have the repository that ATT was installed from as the project `att`: its releases "
        "replace this server, under `att launch`",
    )
    init.add_argument(
        "--repository", metavar="DIR", help="with --self: this checkout of ATT instead"
    )
    init.set_defaults(work=_init)

    words = "Makes, lists, replaces and revokes tokens, as the owner of a state directory."
    token = commands.add_parser("token", aliases=["tokens"], description=words).add_subparsers(
        required=True
    )

    create = token.add_parser(
        "create", parents=[shared], description="Makes a token and shows it once, on stdout."
    )
    create.add_argument("--name", default="", help="of the token; default: one is made up")
    create.add_argument(
        "--owner", default="", help="the person or agent behind it; default: the name says it"
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument(
        "--project",
        metavar="PROJECT",
        action="append",
        help="limit it to this project; may be repeated; default: to none",
    )
    create.add_argument(
        "--expires",
        metavar="DURATION",
        type=_lifetime,
        default=DEFAULT_LIFETIME,
        help="such as 12h or 90d, at most a year, or `never` for a viewer or operator; "
        "default: 90d",
    )
    create.add_argument(
        "--output", "--out", metavar="FILE", help="write it there (mode 0600) instead"
    )
    create.set_defaults(work=_create)

    rotate = token.add_parser(
        "rotate",
        parents=[shared],
        description="Makes a token in the place of another, and shows it once, on stdout.",
    )
    rotate.add_argument("token", metavar="NAME|ID")
    rotate.add_argument(
        "--overlap",
        metavar="DURATION",
        type=_span,
        default=DEFAULT_OVERLAP,
        help="how long the old one works on, such as 0m or 1h, at most 7d; default: 10m",
    )
    rotate.add_argument(
        "--output",
        "--out",
        metavar="FILE",
        help="write it there (mode 0600) instead; a file that holds a token is replaced",
    )
    rotate.set_defaults(work=_rotate)

    listing = token.add_parser("list", parents=[shared], description="Lists all tokens.")
    listing.set_defaults(work=_list)

    revoke = token.add_parser(
        "revoke", parents=[shared], description="Makes a token worthless within a second."
    )
    revoke.add_argument("token", metavar="NAME|ID")
    revoke.set_defaults(work=_revoke)
    return parser


def _init(given: argparse.Namespace) -> None:
    from att_server import tokens

    if given.own or given.repository is not None:
        _init_self(given)
        if tokens.in_use(_state_dir(given)):
            return

    def show(minted: Sequence[tokens.Minted]) -> None:
        if given.output is not None:
            for each in minted:
                _write(Path(given.output) / f"{each.token.name}.token", each.secret.reveal())
        if given.json:
            _show_json({"tokens": [_minted_form(each, given.output) for each in minted]})
        elif given.output is None:
            for each in minted:
                _show(f"{each.token.name:<9} {each.secret.reveal()}")

    if given.output is None and not given.json and not sys.stdout.isatty():
        raise tokens.TokenError(
            "NOT_A_TERMINAL",
            "The new tokens would be shown once, and nobody looks: run this at a terminal, or "
            "with --output DIR or --json.",
        )
    if given.output is not None:
        _make_directory(Path(given.output))
        _check_free(*(Path(given.output) / f"{name}.token" for name in tokens.FIRST))
    tokens.init(_state_dir(given), show)
    _note(
        given,
        "No copy of the tokens is kept: keep each with the one who is to use it. "
        "ATT_TOKEN_FILE=FILE hands one to `att` and to the SDK.",
    )


def _init_self(given: argparse.Namespace) -> None:
    from att_server import own_repository

    repository = None if given.repository is None else Path(given.repository)
    own = own_repository.init_self(_state_dir(given), repository)
    if given.json:
        _show_json({"self": {"project_id": own.project_id, "path": str(own.path)}})
    _note(
        given,
        f"The project {own.project_id} is ATT itself, from {own.path}. Start the server with "
        "`att launch`, which also takes over the one that runs, and release it like any other.",
    )


def _create(given: argparse.Namespace) -> None:
    from att_server import tokens

    def show(minted: Sequence[tokens.Minted]) -> None:
        (one,) = minted
        if given.output is not None:
            _write(Path(given.output), one.secret.reveal())
        _tell(given, one)

    if given.output is not None:
        _check_free(Path(given.output))
    lifetime: timedelta | None = given.expires
    tokens.create(
        _state_dir(given),
        given.name,
        Role(given.role),
        lifetime,
        show,
        owner=given.owner,
        projects=given.project,
    )


def _rotate(given: argparse.Namespace) -> None:
    from att_server import tokens

    def show(minted: Sequence[tokens.Minted]) -> None:
        (one,) = minted
        if given.output is not None:
            _replace(Path(given.output), one.secret.reveal())
        _tell(given, one)

    if given.output is not None:
        _check_token_file(Path(given.output))
    tokens.rotate(_state_dir(given), given.token, given.overlap, show)


def _tell(given: argparse.Namespace, minted: tokens.Minted) -> None:
    """Shows a new token, or says in which file it is."""
    token = minted.token
    if given.json:
        _show_json({"token": _minted_form(minted, given.output)})
    elif given.output is None:
        _show(minted.secret.reveal())
    where = "in " + given.output if given.output is not None else "shown only this once"
    limits = "" if token.projects is None else f", limited to {' '.join(sorted(token.projects))}"
    expiry = f", expires {_expiry(token)}"
    _note(given, f"The token {token.name} ({token.role}{limits}{expiry}) is {where}.")


def _list(given: argparse.Namespace) -> None:
    from att_server import tokens

    found = tokens.all_tokens(_state_dir(given))
    if given.json:
        for token in found:
            _show_json({"token": _form(token)})
        return
    for token in found:
        projects = "all projects" if token.projects is None else " ".join(sorted(token.projects))
        used = token.last_use_time
        _show(
            f"{token.token_id}  {token.name:<20} {token.role:<9} {_state(token):<8} "
            f"expires {_expiry(token):<22} "
            f"used {used.isoformat(timespec='minutes') if used else 'never':<22} {projects}"
        )
    if not found:
        _note(given, "There are no tokens. `att init` makes the first.")


def _revoke(given: argparse.Namespace) -> None:
    from att_server import tokens

    for token in tokens.revoke(_state_dir(given), given.token):
        if given.json:
            _show_json({"token": _form(token)})
        else:
            _show(f"att: the token {token.name} ({token.token_id}) is revoked.")


def _minted_form(minted: tokens.Minted, output: str | None) -> dict[str, object]:
    shown = {"secret": minted.secret.reveal()} if output is None else {"output": output}
    return _form(minted.token) | shown


def _form(token: Token) -> dict[str, object]:
    """As a JSON object; nothing of the secret, not even its digest."""
    return {
        "token_id": token.token_id,
        "name": token.name,
        "owner": token.owner or token.name,
        "role": token.role.value,
        "projects": None if token.projects is None else sorted(token.projects),
        "state": _state(token),
        "create_time": token.create_time.isoformat(),
        "expire_time": token.expire_time and token.expire_time.isoformat(),
        "revoke_time": token.revoke_time and token.revoke_time.isoformat(),
        "last_use_time": token.last_use_time and token.last_use_time.isoformat(),
        "successor_id": token.successor_id,
    }


def _expiry(token: Token) -> str:
    return token.expire_time.isoformat(timespec="minutes") if token.expire_time else "never"


def _state(token: Token) -> str:
    if token.revoke_time is not None:
        return "revoked"
    expired = token.expire_time is not None and token.expire_time <= datetime.now(UTC)
    if expired:
        return "expired"
    return "replaced" if token.successor_id else "valid"


def _lifetime(text: str) -> timedelta | None:
    return None if text == "never" else _span(text)


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30m, 12h or 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _state_dir(given: argparse.Namespace) -> Path:
    return resolve_state_dir(given.state_dir, os.environ)


def _write(path: Path, secret: str) -> None:
    """Makes the file, readable by its owner only; never one that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, secret: str) -> None:
    """Makes the file, or puts a new one in its place at once: its reader never finds half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    _write(draft, secret)
    try:
        os.replace(draft, path)
    except OSError:
        draft.unlink()
        raise


def _check_token_file(path: Path) -> None:
    """Raises TokenError where there is something that is not the file of a token."""
    from att_server import tokens

    try:
        with path.open("rb") as file:
            held = file.read(len(PREFIX))
    except FileNotFoundError:
        return
    except OSError as error:
        raise tokens.TokenError(
            "OUTPUT_NOT_WRITABLE", f"{path}: {error.strerror}. Name another file."
        ) from error
    if path.is_symlink() or held != PREFIX.encode():
        raise tokens.TokenError(
            "OUTPUT_EXISTS",
            f"{path} exists and holds no token, and is not overwritten. Name another one.",
        )


def _make_directory(path: Path) -> None:
    """Makes it, for its owner only, where it is not there. Raises TokenError."""
    from att_server import tokens

    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise tokens.TokenError(
            "OUTPUT_NOT_WRITABLE", f"{path}: {error.strerror}. Name another directory."
        ) from error


def _check_free(*paths: Path) -> None:
    """Raises TokenError where a file is to be written and there is one."""
    from att_server import tokens

    for path in paths:
        if os.path.lexists(path):
            raise tokens.TokenError(
                "OUTPUT_EXISTS", f"{path} exists, and no file is overwritten. Name another one."
            )


def _show_json(form: dict[str, object]) -> None:
    _show(json.dumps(form))


def _show(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the program's output


def _note(given: argparse.Namespace, line: str) -> None:
    if not given.json:
        print(f"att: {line}", file=sys.stderr)  # noqa: T201 - the program's output
