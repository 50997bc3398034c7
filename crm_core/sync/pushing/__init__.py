"""The steps by which records reach a remote system: look, claim, save the attempt, write, settle.

The order of I/O is docs/sync.md's. No lease guards a push: a record's ETag and the attempt in its link do. Whatever
happens between two steps, what may be at the remote stands in the link before it is sent, and the next worker looks
before it sends again.
"""

from crm_core.sync.pushing.base import Stop
from crm_core.sync.pushing.pusher import Pusher

__all__ = ["Pusher", "Stop"]
