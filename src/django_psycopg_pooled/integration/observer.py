"""Lets the pool name lines of Python."""

from typing import Any

from django_psycopg_pooled.pool.borrower import suspended_frame
from django_psycopg_pooled.tracking import labels, stacks


class CodeObserver:
    """The room `tracking` as the pool wants it; see Observer. Stateless."""

    # As it is: a method of ours around it would cost a tenth of what it does.
    here = staticmethod(stacks.capture)

    def place(self, stack: Any) -> str:
        return stacks.place(stack) if stack else ""

    def lines(self, stack: Any) -> list[str]:
        return stacks.lines(stack) if stack else []

    def now(self, thread_id: int) -> Any:
        return stacks.live(thread_id, suspended_frame(thread_id))

    def label(self, thread_id: int) -> str | None:
        return labels.label_of(thread_id)


OBSERVER = CodeObserver()
