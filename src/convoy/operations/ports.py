"""Checks that ports are free, with a clear error; runs before any set-up, so it needs the standard library alone."""

import os
import socket
import sys
from pathlib import Path

HOST = "127.0.0.1"


class PortTaken(RuntimeError):
    """A port that another process holds, or that may not be used."""


def check(ports: dict[str, int]) -> None:
    """Raise PortTaken for the first port (by the name of its make variable) that cannot be listened on."""
    for name, port in ports.items():
        if len(set(ports.values())) < len(ports):
            raise PortTaken(
                f"{' and '.join(ports)} are both {port}, but each needs its own; choose {_choice(name, 'another')}"
            )
        if not 1 <= port <= 65535:
            raise PortTaken(f"{port} is no port; choose {_choice(name, '1 to 65535')}")
        with socket.socket() as probe:
            # As the servers do: the port of one that has just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError:
                raise PortTaken(
                    f"port {port} may not be used by this user; choose {_choice(name, '1024 or more')}"
                ) from None
            except OSError:
                raise PortTaken(
                    f"port {port} is taken{_describe_holder(port)}; end that, or choose {_choice(name, 'a free one')}"
                ) from None


def _choice(name: str, value: str) -> str:
    return f"{name}=<{value}> (make), --{name.lower().replace('_', '-')} <{value}> (python -m convoy)"


def _describe_holder(port: int) -> str:
    """The process that listens on a port, as far as Linux shows it to this user; empty elsewhere."""
    try:
        sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and process.name != str(os.getpid()) and _has_open(process, sockets):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f" by process {process.name} ({command[:100]})"
    except OSError:
        pass
    return ""


def _listening_inodes(port: int) -> list[str]:
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path("/proc/net", table).read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port]


def _has_open(process: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(descriptor) in sockets for descriptor in (process / "fd").iterdir())
    except OSError:  # another user's, or gone
        return False


if __name__ == "__main__":
    try:
        check({name: int(port) for name, port in (argument.split("=") for argument in sys.argv[1:])})
    except PortTaken as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit(f"usage: ports.py NAME=PORT..., with ports from 1 to 65535; not {' '.join(sys.argv[1:])}")
