"""C2PA: a signed manifest in a file, by the operator's certificate. Needs the extra `c2pa`.

The manifest says that a trained model made the picture, and holds the file's own metadata as an assertion: what the
signature vouches for is that whoever has the key wrote this about these bytes. Nothing is asked of the network: there
is no time stamp of an authority, and no revocation is looked up.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.provenance.files import encode_image
from models.provenance.texts import dumps
from models.provenance.xmp import SOURCE_TYPE
from router.errors import LoadError, StepError

ASSERTION = "urn.triptych.generation"
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
MISSING = "C2PA needs a library that is not installed: pip install -c constraints.txt -e '.[c2pa]'"
QUIET: dict[str, dict[str, Any]] = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"ocsp_fetch": False, "remote_manifest_fetch": False, "verify_timestamp_trust": False},
}
"""Settings of the library: nothing is fetched, and no smaller picture is put beside the picture."""


class Credentials:
    """A certificate with its key, which signs files. Safe to use from several threads."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """certificate: PEM, the signer's first, then those that issued it;   key: PEM, of the first, with no password.

        Raises `LoadError`, also if no manifest can be signed with them.
        """
        c2pa = _library()
        chain, secret = _read(certificate), _read(key)
        algorithm = _algorithm(chain, secret, certificate, key)
        self._lock = threading.Lock()
        try:
            self._context = c2pa.Context(c2pa.Settings.from_dict(QUIET))
            self._signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, secret, None))
            probe = self.sign(encode_image(np.zeros((8, 8, 3), np.uint8)), "png", None)
        except (c2pa.C2paError, StepError) as error:
            raise LoadError(f"{certificate}: no manifest can be signed with it: {error}") from None
        if (read := read_credentials(probe, "png")) is None or read.state == "Invalid":
            why = "; ".join(read.problems) if read else "there is no manifest"
            raise LoadError(f"{certificate}: what is signed with it is not valid: {why}")

    def sign(self, file: bytes, format: str, metadata: Mapping[str, Any] | None) -> bytes:
        """The file with a manifest. metadata: recorded in it, None: only that a model made it. Raises `StepError`."""
        c2pa = _library()
        signed = io.BytesIO()
        try:
            with self._lock:
                builder = c2pa.Builder(_manifest(format, metadata), context=self._context)
                builder.sign(self._signer, MEDIA_TYPES[format], io.BytesIO(file), signed)
        except c2pa.C2paError as error:
            remedy = "if it has expired, renew provenance.c2pa.certificate and start again"
            raise StepError(f"the picture could not be signed: {error}; {remedy}") from None
        return signed.getvalue()


@dataclass(frozen=True)
class Manifest:
    """The active manifest of a file, as it was found.

    state:    "Trusted" (by certificates that are known here), "Valid" (nothing was changed; who signed is not judged)
              or "Invalid";   problems: what is wrong, as codes of C2PA
    actions:  what was done, each with its digital source type;   metadata: what Triptych recorded in it, if it did
    manifests: how many the file has, with those of what it was made of
    """

    state: str
    problems: tuple[str, ...]
    generator: str
    issuer: str
    common_name: str
    signed_at: str
    actions: tuple[tuple[str, str], ...]
    assertions: tuple[str, ...]
    metadata: Mapping[str, Any]
    manifests: int


def read_credentials(file: bytes, format: str, trusted: str | None = None) -> Manifest | None:
    """The manifest of a file, None if it has none. trusted: certificates in PEM by which a signer is known

    Raises `LoadError` if the library is not here, `StepError` for a manifest that cannot be read.
    """
    c2pa = _library()
    chosen = dict(QUIET)
    if trusted is not None:
        chosen["trust"] = {"user_anchors": trusted}
        chosen["verify"] = {**QUIET["verify"], "verify_trust": True}
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(chosen))
        reader = c2pa.Reader.try_create(MEDIA_TYPES[format], io.BytesIO(file), context=context)
        if reader is None:
            return None
        with reader:
            found = json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        raise StepError(f"its C2PA manifest cannot be read: {error}") from None
    manifests = found.get("manifests") or {}
    active = manifests.get(found.get("active_manifest")) or {}
    signature = active.get("signature_info") or {}
    assertions = {str(one.get("label")): one.get("data") for one in active.get("assertions") or ()}
    actions = [
        (str(one.get("action")), str(one.get("digitalSourceType", "")))
        for label, data in assertions.items()
        if label.startswith("c2pa.actions") and isinstance(data, dict)
        for one in data.get("actions") or ()
    ]
    recorded = assertions.get(ASSERTION)
    generators = active.get("claim_generator_info") or [{}]
    return Manifest(
        state=str(found.get("validation_state", "Invalid")),
        problems=tuple(dict.fromkeys(str(one.get("code")) for one in _failures(found))),
        generator=" ".join(str(generators[0].get(key, "")) for key in ("name", "version")).strip(),
        issuer=str(signature.get("issuer", "")),
        common_name=str(signature.get("common_name", "")),
        signed_at=str(signature.get("time", "")),
        actions=tuple(actions),
        assertions=tuple(assertions),
        metadata=recorded if isinstance(recorded, dict) else {},
        manifests=len(manifests),
    )


def available() -> bool:
    """Whether the library is here."""
    try:
        _library()
    except LoadError:
        return False
    return True


def _manifest(format: str, metadata: Mapping[str, Any] | None) -> str:
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": {"name": "Triptych"}}
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]
    if metadata is not None:
        assertions.append({"label": ASSERTION, "data": json.loads(dumps(metadata))})
    generator = {"name": "Triptych"}
    return json.dumps({"claim_generator_info": [generator], "format": MEDIA_TYPES[format], "assertions": assertions})


def _failures(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    results = (found.get("validation_results") or {}).get("activeManifest") or {}
    return [one for one in results.get("failure") or () if isinstance(one, dict)]


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise LoadError(MISSING) from None
    return c2pa


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise LoadError(f"{file}: cannot be read: {error.strerror or error}") from None


def _algorithm(chain: bytes, secret: bytes, certificate: Path, key: Path) -> str:
    """C2PA's name of how this key signs. Raises `LoadError` unless certificate and key are sound and fit each other."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise LoadError(f"{certificate}: holds no certificate in PEM: {error}") from None
    try:
        private = serialization.load_pem_private_key(secret, None)
    except TypeError:
        raise LoadError(f"{key}: the key has a password; store it without one, readable by the server alone") from None
    except ValueError as error:
        raise LoadError(f"{key}: holds no private key in PEM: {error}") from None
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != first.public_key().public_bytes(*spki):
        raise LoadError(f"{key}: is not the key of the first certificate in {certificate}; put the signer's own first")
    now = datetime.now(UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        span = f"{first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}"
        raise LoadError(f"{certificate}: is valid from {span}, not today; renew it")
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in (
        "secp256r1",
        "secp384r1",
        "secp521r1",
    ):
        return {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise LoadError(f"{key}: C2PA does not sign with such a key; use EC (P-256), Ed25519 or RSA")
