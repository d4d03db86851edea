"""The operator's HTTP API: what the fleet does, and commands to it.

application   the routes and what they do
guard         who may ask: own names, own pages, the token or a session
sessions      what a browser gets for the token
attempts      how often a wrong token may be presented
login         the routes of both
answers       services, failures and errors as JSON
figures       the last days and the present in numbers
changes       what services look like, told to those who follow
options       what a call says beyond its path
streams       transitions as server-sent events, output as text
preparations  pulls and builds that an operator asked for
openapi       the document that describes the routes

It posts events and shows snapshots; it decides nothing about a service.
"""

from autostart.admin.application import make_admin

__all__ = ["make_admin"]
