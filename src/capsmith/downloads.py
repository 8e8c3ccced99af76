"""Large files from addresses that the program knows: continued where they broke off.

Addresses that strangers give are for `capsmith.fetch`.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from capsmith.errors import DownloadError

Progress = Callable[[str, int, int], None]
"""Is told a file's name, its bytes so far and its bytes in all."""

_TIMEOUT_S: Final = 30
_PIECE: Final = 1 << 20


def continue_download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    token: str | None = None,
    hints: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Append to `path` what it lacks of the file at `url`; never more than `max_bytes` in all.

    token: sent as a bearer to the first host alone. hints: what to do about a status of the
    server, such as {404: "check the name"}. Raises `DownloadError`; what came until then stays, so
    that the same call goes on from there.
    """
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "capsmith"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
            has_resumed = response.status == 206
            done = done if has_resumed else 0
            with path.open("ab" if has_resumed else "wb") as file:
                while done <= max_bytes and (piece := response.read(_PIECE)):
                    file.write(piece)
                    done += len(piece)
                    if progress:
                        progress(path.name, done, max_bytes)
                if done > max_bytes:
                    file.truncate(0)
                    raise DownloadError(f"{url}: has more than {max_bytes:,} bytes")
            if response.length:  # what is left of what the server promised
                raise DownloadError(f"{url}: broke off; try again to go on")
    except urllib.error.HTTPError as error:
        hint = (hints or {}).get(error.code)
        answer = f"{url}: the server answered {error.code}"
        raise DownloadError(f"{answer}; {hint}" if hint else answer) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DownloadError(f"{url}: cannot be fetched: {reason}; try again to go on") from error


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but not from https to http."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url}: redirected from https to http, which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_NoDowngrade)
