"""Has the machine's other processes of this project forget plans once migrations have run."""

import logging
from typing import Any

from django_psycopg_pooled.control.client import ask_all
from django_psycopg_pooled.control.protocol import Request
from django_psycopg_pooled.management.process import FORGET_PLANS, project, setting_directories

logger = logging.getLogger(__name__)


class OtherProcesses:
    """A receiver of post_migrate; lives as long as the process, and serves its migrating thread.

    The server tells nobody that a parameter would have another type now: what compares it as text
    goes on so where the column is citext since.
    """

    def __init__(self) -> None:
        self._told_of: object = None

    def forget_plans(self, sender: object, plan: object = None, **kwargs: Any) -> None:
        """Blocks for milliseconds, for some seconds where a process hangs. Never raises.

        plan   the migrations that have run; none after a flush. Each app sends them.
        """
        if not plan or plan is self._told_of:
            return
        self._told_of = plan
        try:
            _ask()
        except Exception:
            logger.exception("other processes could not be told that migrations have run")


def _ask() -> None:
    replies = ask_all(setting_directories(), Request(FORGET_PLANS, {"pool": None}, project()))
    for reply in replies.replies:
        if reply.error is not None:
            logger.warning(
                "process %s may go on with statements that were prepared before these migrations:"
                " %s. To do: restart it, should the types of columns have changed.",
                reply.pid, reply.error,
            )  # fmt: skip


OTHER_PROCESSES = OtherProcesses()
