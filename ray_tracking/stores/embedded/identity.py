"""
Which user Postgres runs as, and how a child becomes that user.

Postgres refuses to run as root. Started by root, it therefore gets a user namespace of
its own, in which root's files belong to an ordinary user: nothing changes owner, and no
account is needed. Where user namespaces are forbidden (most containers), it becomes a
system user instead, who then owns the Postgres directory. An ordinary user needs none
of this, unless the account has no name, which ``initdb`` insists on.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_tracking.errors import StartError

_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """The user of a server. ``uid`` and ``gid`` are what its files show to the outside."""

    uid: int
    gid: int
    way: Literal["as we are", "namespace", "setuid"]
    #: Who it seems to be to itself.
    inner_uid: int
    inner_gid: int

    def assume(self) -> None:
        """Become this user: for a child between fork and exec."""
        if self.way == "namespace":
            if _libc.unshare(_CLONE_NEWUSER) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            # An unprivileged process may map its group only after giving up setgroups.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{self.inner_uid} {self.uid} 1")
            Path("/proc/self/gid_map").write_text(f"{self.inner_gid} {self.gid} 1")
        elif self.way == "setuid":
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)


def choose(database: Path, *, namespace: bool) -> Identity:
    """
    Decide who runs Postgres on this database.

    Args:
        database: Its directory. An existing one decides: it keeps its owner.
        namespace: False forbids a user namespace.

    Raises:
        StartError: The database belongs to somebody whom we cannot become.
    """
    uid, gid = os.geteuid(), os.getegid()
    found = database.stat() if database.exists() else None
    if found is not None and uid not in (0, found.st_uid):
        raise StartError(
            f"{database} belongs to user {found.st_uid}, and this is user {uid}: "
            "run as that user, or choose another TRACKING_DATA_DIR, or set DATABASE_URL"
        )
    if found is not None and found.st_uid != uid:
        return Identity(found.st_uid, found.st_gid, "setuid", found.st_uid, found.st_gid)
    if uid != 0 and _has_name(uid):
        return Identity(uid, gid, "as we are", uid, gid)
    account = _ordinary_account()
    inside = Identity(uid, gid, "namespace", account.pw_uid, account.pw_gid)
    if namespace and _works(inside):
        return inside
    if uid != 0:
        return Identity(uid, gid, "as we are", uid, gid)
    if found is not None:
        raise StartError(
            f"{database} belongs to root, and Postgres cannot run as root without user "
            "namespaces, which are forbidden here: run as an ordinary user, or choose "
            "another TRACKING_DATA_DIR, or set DATABASE_URL"
        )
    return Identity(account.pw_uid, account.pw_gid, "setuid", account.pw_uid, account.pw_gid)


def check_access(identity: Identity, paths: Iterable[Path]) -> None:
    """
    Check that this user can get at what root can: inside a namespace, root's powers are gone.

    Raises:
        StartError: Names the directory that is closed to the user.
    """
    if identity.way == "as we are":
        return
    steps = [step for path in paths for step in (*reversed(path.parents), path)]
    closed = _in_child(identity, steps)
    if closed is None:
        raise StartError(
            f"Postgres cannot run as root, and root may not become user {identity.uid} here: "
            "run as an ordinary user, or set DATABASE_URL"
        )
    if closed:
        raise StartError(
            f"{closed} is closed to the user that Postgres runs as (user {identity.uid}, without "
            "root's powers): run as an ordinary user, or choose another TRACKING_DATA_DIR, "
            "or set DATABASE_URL"
        )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _ordinary_account() -> pwd.struct_passwd:
    accounts = {account.pw_name: account for account in pwd.getpwall() if account.pw_uid != 0}
    for account in (accounts.get("postgres"), accounts.get("nobody"), *accounts.values()):
        if account is not None:
            return account
    raise StartError("/etc/passwd names no user but root: set DATABASE_URL")


def _works(identity: Identity) -> bool:
    return _in_child(identity, []) == ""


def _in_child(identity: Identity, steps: list[Path]) -> str | None:
    """The first path that is closed to this user, "" for none, None if one cannot become it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            identity.assume()
            for step in steps:
                if not os.access(step, os.X_OK):
                    os.write(writer, os.fsencode(step))
                    break
            code = 0
        finally:
            # Not an exception, not an exit handler may run in the copy.
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as answer:
        closed = os.fsdecode(answer.read())
    _, status = os.waitpid(child, 0)
    return closed if status == 0 else None
