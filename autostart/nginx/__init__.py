"""Server blocks for nginx, rendered from the map.

blocks  the map → the text; its template and snippets are the files of the folder nginx/
words   a value as one word of nginx's configuration, or refused
trial   what the installed nginx says of a text, in a scratch folder
"""

from autostart.nginx.blocks import SNIPPETS, Certificate, Host, Options, doubts, hosts, render
from autostart.nginx.trial import Installed, Verdict, for_trial, installed, try_out

__all__ = [
    "SNIPPETS",
    "Certificate",
    "Host",
    "Installed",
    "Options",
    "Verdict",
    "doubts",
    "for_trial",
    "hosts",
    "installed",
    "render",
    "try_out",
]
