"""What a figure depends on beside the code: machine and versions, printed above each table."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from benchmarks.tables import fold
from devtools.postgres import PostgresServer

PACKAGES = (
    "Django",
    "psycopg",
    "psycopg-binary",
    "psycopg-c",
    "psycopg-pool",
    "psycopg2",
    "psycopg2-binary",
    "django-db-connection-pool",
    "SQLAlchemy",
    "django-db-geventpool",
    "gevent",
    "django-pg-real-pool",
    "django-debug-toolbar",
    "django-silk",
    "opentelemetry-sdk",
    "django-psycopg-pooled",
)

Facts = Mapping[str, str]


def facts(server: PostgresServer) -> Facts:
    """Machine, load and versions, by name; asks the server for its own."""
    [server_version] = server.psql("SHOW server_version")
    return {
        "cores": str(os.cpu_count()),
        "CPU": _cpu_model(),
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "PostgreSQL": server_version,
        **{package: version for package in PACKAGES if (version := _version(package))},
    }


def fact_lines(known: Facts) -> list[str]:
    """The facts as folded text."""
    return fold("; ".join(f"{name} {value}" for name, value in known.items()))


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
