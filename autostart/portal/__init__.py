"""Docs of every service for people, from a cache: reading them wakes nothing.

    portal      what is answered on the portal's host, and for a service that is not ready
    refresh     reads a document whenever its service is ready
    cache       the documents as files
    document    what a document is, and how one is shown by others than its service
    site        the page and what it loads; site/ holds its files
    page        what comes in and goes out, as values

It knows no request and no connection: `app` turns one into a Reader and sends the Page.
"""

from autostart.portal.document import Origin
from autostart.portal.page import Page, Reader
from autostart.portal.portal import Portal
from autostart.portal.site import FOLDER

__all__ = ["FOLDER", "Origin", "Page", "Portal", "Reader"]
