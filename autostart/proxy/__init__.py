"""Bytes between clients and services.

    server      the listening side: heads parsed and judged, a deadline for each, our refusals
    forward     one request to a ready service, its answer to the client
    tunnel      a WebSocket after its 101
    connection  one fresh connection to a service
    answer      what a client gets, relayed or ours
    headers     which header lines go on, and whose X-Forwarded-* are believed
    framing     heads that the parser lets pass and we do not
    inbox       bytes received and not yet passed on
    silence     how long nothing has moved

It knows endpoints, not services' states: who may be forwarded, and when, is decided before.
"""

from autostart.proxy.answer import (
    Answer,
    error_response,
    own_answer,
    own_stream,
    prefers_html,
    reset_client,
)
from autostart.proxy.forward import forward
from autostart.proxy.framing import is_websocket
from autostart.proxy.headers import Peer, origin_target, peer
from autostart.proxy.server import SETTLE_SECONDS, ProxyServer, request_id

__all__ = [
    "SETTLE_SECONDS",
    "Answer",
    "Peer",
    "ProxyServer",
    "error_response",
    "forward",
    "is_websocket",
    "origin_target",
    "own_answer",
    "own_stream",
    "peer",
    "prefers_html",
    "request_id",
    "reset_client",
]
