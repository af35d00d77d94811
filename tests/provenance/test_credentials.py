"""C2PA: manifests that the operator's certificate signs, with a chain that is made for the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.api.wire.rendering import Rendering, packed
from models.provenance import FORMATS, encode_image
from models.provenance.credentials import Credentials, read_credentials
from models.provenance.reading import read_file, read_pixels
from models.provenance.xmp import SOURCE_TYPE
from router.errors import LoadError, StepError
from router.types import Provenance
from tests.deployments.entrance.test_answers import ROUTE, picture, wire
from tests.provenance.conftest import Issued, issue

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
METADATA = {"prompt": "a red circle 圆 🔴", "seed": 7, "steps": [{"settings": {"guidance_scale": 7.5}}]}


@pytest.fixture(scope="module")
def credentials(issued: Issued) -> Credentials:
    return Credentials(issued.certificate, issued.key)


@pytest.mark.parametrize("format", FORMATS)
def test_a_signed_file_says_who_vouches_for_what(credentials: Credentials, issued: Issued, format: str) -> None:
    """The manifest is valid, and trusted by the root; it says that a model made the picture, and holds the metadata.
    Pixels and everything else in the file are as before."""
    file = encode_image(PIXELS, format, METADATA)
    signed = credentials.sign(file, format, METADATA)
    found = read_credentials(signed, format, issued.root.read_text())
    assert found is not None
    assert (found.state, found.problems, found.manifests) == ("Trusted", (), 1)
    assert (found.common_name, found.issuer) == ("Signer", "Studio of the test")
    assert found.actions == (("c2pa.created", SOURCE_TYPE),)
    assert found.metadata == METADATA
    unknown = read_credentials(signed, format)
    assert unknown is not None and unknown.state == "Valid"
    assert (read_pixels(signed) == read_pixels(file)).all()
    assert read_file(signed).metadata == read_file(file).metadata == METADATA


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_was_changed_is_not_valid(credentials: Credentials, format: str) -> None:
    """One bit of the pixels is enough; a file without a manifest has none."""
    signed = bytearray(credentials.sign(encode_image(PIXELS, format), format, None))
    signed[-60] ^= 1
    found = read_credentials(bytes(signed), format)
    assert found is not None
    assert found.state == "Invalid" and found.problems
    assert read_credentials(encode_image(PIXELS, format), format) is None


def test_a_marked_file_has_nothing_but_the_mark_signed(credentials: Credentials) -> None:
    """Without metadata the manifest says that a model made the picture, and no prompt is in the file."""
    found = read_credentials(credentials.sign(encode_image(PIXELS, "png", mark=True), "png", None), "png")
    assert found is not None
    assert (found.metadata, found.actions) == ({}, (("c2pa.created", SOURCE_TYPE),))


def test_another_root_trusts_nothing(credentials: Credentials, tmp_path: Path) -> None:
    """A signature is trusted only by the certificates that one names."""
    other = issue(tmp_path)
    signed = credentials.sign(encode_image(PIXELS), "png", None)
    found = read_credentials(signed, "png", other.root.read_text())
    assert found is not None
    assert found.state != "Trusted"
    assert "signingCredential.untrusted" in found.problems or found.state == "Valid"


def refusal(certificate: Path, key: Path) -> str:
    with pytest.raises(LoadError) as caught:
        Credentials(certificate, key)
    return caught.value.message


def test_what_cannot_sign_is_told_before_anything_is_made(issued: Issued, tmp_path: Path) -> None:
    """Files that are missing or hold something else, keys of others or with a password, certificates that have expired:
    each is an error that names its file."""
    from cryptography.hazmat.primitives import serialization

    other = issue(tmp_path)
    assert "no such file" in refusal(tmp_path / "none.pem", issued.key).lower()
    assert "holds no certificate" in refusal(issued.key, issued.key)
    assert "holds no private key" in refusal(issued.certificate, issued.certificate)
    assert "is not the key of the first certificate" in refusal(issued.certificate, other.key)
    (tmp_path / "old").mkdir()
    old = issue(tmp_path / "old", days=0)
    assert "not today" in refusal(old.certificate, old.key)
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    kind = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
    assert "password" in refusal(issued.certificate, locked)


@pytest.mark.parametrize("level", ["full", "mark", "none"])
def test_what_is_served_is_signed_unless_nothing_is_to_be_said(credentials: Credentials, level: Provenance) -> None:
    """The files of jobs have a manifest with the metadata, with the mark alone, or none, as the policy has it."""
    route = replace(ROUTE, decision=replace(ROUTE.decision, provenance=level))
    file, media_type = Rendering(credentials).file(picture(), route, packed(wire(output_format="webp")))
    found = read_credentials(file, "webp")
    assert media_type == "image/webp"
    assert (found is None) == (level == "none")
    assert found is None or (found.metadata.get("seed"), found.state) == (5 if level == "full" else None, "Valid")
    assert (b"trainedAlgorithmicMedia" in file) == (level != "none")


def test_a_certificate_that_ran_out_is_told(issued: Issued, tmp_path: Path) -> None:
    """While the server runs, too: a picture that cannot be signed is a failure that says why, and is not given out."""
    import c2pa

    late, old = Credentials(issued.certificate, issued.key), issue(tmp_path, days=0)
    late._signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo("es256", old.certificate.read_bytes(), old.key.read_bytes(), None)
    )
    with pytest.raises(StepError, match=r"could not be signed.*renew provenance\.c2pa\.certificate"):
        late.sign(encode_image(PIXELS), "png", None)
