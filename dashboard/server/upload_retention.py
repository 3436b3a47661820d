"""What the server keeps of uploads: nothing on the disk, and nothing of tabs that were closed.

Both mend what Streamlit and Starlette do by themselves; docs/security.md says what is so.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

EXPIRE_EVERY_S = 15.0
_started = threading.Lock()


def guard_uploads() -> None:
    """Keep uploads off the disk and let go of closed tabs; calling it again does nothing more.

    Called before the server starts, and by the page for a plain `streamlit run`: no upload can
    come before its page was drawn.
    """
    keep_uploads_in_memory()
    if _started.acquire(blocking=False):
        threading.Thread(target=_forget_closed_tabs, daemon=True).start()


def keep_uploads_in_memory() -> None:
    """Starlette writes parts of over 1 MB into an unnamed temporary file; now it never does.

    What Streamlit then makes of them are bytes in memory anyway; server.maxUploadSize holds.
    """
    from starlette.formparsers import MultiPartParser

    MultiPartParser.spool_max_size = sys.maxsize


def _forget_closed_tabs() -> None:
    """Empty the sessions of closed tabs once server.disconnectedSessionTTL is over.

    Streamlit only drops them when another tab is closed, and even then what it served last keeps
    its files and its picture: the last visitor's would stay for as long as the server runs.
    """
    pause = threading.Event()
    stored: dict[str, Any] = {}
    while not pause.wait(EXPIRE_EVERY_S):
        expire_sessions(stored)


def expire_sessions(stored: dict[str, Any]) -> bool:
    """One round of it, on the server's own thread; False where there is no server (yet).

    stored: the sessions of closed tabs that were there the last time, by id. Streamlit has no
    public way; its version is pinned and a test holds that this one works.
    """
    from streamlit import runtime

    if not runtime.exists():
        return False
    try:
        running = runtime.get_instance()
        loop = running._get_async_objs().eventloop
        manager = running._session_mgr
        loop.call_soon_threadsafe(_empty_expired, manager, stored)
    except (AttributeError, RuntimeError):  # another Streamlit, or one that is stopping
        return False
    return True


def _empty_expired(manager: Any, stored: dict[str, Any]) -> None:
    active = {info.session.id for info in manager.list_active_sessions()}
    waiting = {
        info.session.id: info.session
        for info in manager.list_sessions()  # those that have expired are not among them
        if info.session.id not in active
    }
    for session_id in [known for known in stored if known not in waiting]:
        session = stored.pop(session_id)
        if session_id not in active:
            session.shutdown()  # its uploaded files and shown pictures
            session.session_state.clear()
    stored.update(waiting)
