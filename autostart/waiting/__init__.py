"""The waiting page: what a browser sees while its service starts, and how it gets there.

status    what a front end may know of a service, as JSON and as an event
language  which of our two languages an Accept-Language prefers
words     what the page says in each
page      the page: ours, or an operator's own

Pure but for the operator's own file. Who gets the page, and when, is the caller's to say; it knows
no request.
"""

from autostart.waiting.language import preferred_language
from autostart.waiting.page import Pages, WaitingPage, doubts, is_not_now
from autostart.waiting.status import Status, public_status, status_event

__all__ = [
    "Pages",
    "Status",
    "WaitingPage",
    "doubts",
    "is_not_now",
    "preferred_language",
    "public_status",
    "status_event",
]
