"""The operator's page on the admin listener: files for a browser, no data of its own.

page    serves them
static  one page, one style sheet, modules without a build step

Everything that the page shows and does goes through the operator's API.
"""

from autostart.dashboard.page import add_to

__all__ = ["add_to"]
