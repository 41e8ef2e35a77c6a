"""Whether the Hugging Face hub answers: one quick question, so that a machine without a network hears so in seconds.

The hub's own client would try again for half a minute before it says so.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from huggingface_hub import constants

TIMEOUT_SECONDS = 5.0


def is_hub_reachable() -> bool:
    """Ask once; offline mode counts as unreachable, any answer at all as reachable."""
    if constants.is_offline_mode():
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 (the hub library's own address)
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
