"""Imported first by the server process of ``local``, which calls nothing: silence libraries."""

import logging

from ilu.system.optional import OF_TORCHAO

# The one exception to "no work at import": the modules that are preloaded next would print notices.
for name in OF_TORCHAO:
    logging.getLogger(name).setLevel(logging.ERROR)
