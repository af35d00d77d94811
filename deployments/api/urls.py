"""Addresses of pictures: whoever has one can open it until it expires, without a key.

`/v1/images/{id}/content?expires=UNIX_SECONDS&signature=HEX`, signed with a secret that all ingresses share.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import quote

from router.errors import RequestError

URL_SECRET = "TRIPTYCH_URL_SECRET"
"""The environment variable with the secret; without it, a random one lies in the store's folder."""


@dataclass(frozen=True)
class Signed:
    """An address and the Unix second in which it expires."""

    url: str
    expires_at: int


@dataclass(frozen=True)
class UrlSigner:
    """secret: shared by everybody who signs and checks;   expire_s: how long an address is good for
    base: what addresses begin with; "": what the client said"""

    secret: bytes
    expire_s: float = 3600.0
    base: str = ""

    def sign(self, picture: str, base: str = "") -> Signed:
        """The address of a picture from now on; base: of this server as the client knows it."""
        expires_at = int(time.time() + self.expire_s) + 1
        path = f"{(self.base or base).rstrip('/')}/v1/images/{quote(picture, safe='')}/content"
        return Signed(f"{path}?expires={expires_at}&signature={self._mark(picture, expires_at)}", expires_at)

    def check(self, picture: str, expires: str, signature: str) -> int:
        """The second in which the address expires. Raises `RequestError` if it has, or if it is not one of ours."""
        sound = expires.isascii() and expires.isdigit() and len(expires) < 16
        if not (sound and hmac.compare_digest(self._mark(picture, int(expires)).encode(), signature.encode())):
            message = "this address is not signed by this server; ask for the job again, its pictures have new ones"
            raise RequestError(message, "signature", "invalid_signature")
        if int(expires) < time.time():
            message = "this address has expired; ask for the job again, its pictures have new ones"
            raise RequestError(message, "expires", "url_expired")
        return int(expires)

    def _mark(self, picture: str, expires_at: int) -> str:
        text = f"{picture}\n{expires_at}".encode("utf-8", "replace")
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()
