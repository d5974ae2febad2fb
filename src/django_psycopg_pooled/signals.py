"""Django signals of this package.

idle_in_transaction   a transaction has been idle for longer than idle_in_transaction_threshold;
                      sender: the class of the pool; pool; connection (a ConnectionSnapshot)
incident              something was kept: see pool.incidents(); pool; incident

Sent in threads of the pool's. What a receiver raises is logged.
"""

from django.dispatch import Signal

idle_in_transaction = Signal()
incident = Signal()
