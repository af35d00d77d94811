"""What the tests of provenance share: the command, and a certificate that is made for them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployments.conftest import triptych

__all__ = ["triptych"]


@dataclass(frozen=True)
class Issued:
    """Files in PEM: a chain with the signer's certificate first, its key, and the root that issued it."""

    certificate: Path
    key: Path
    root: Path


def issue(folder: Path, days: int = 30) -> Issued:
    """A root, and a certificate for signing that is valid for so many days from yesterday."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio of the test")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def usage(sign: bool) -> x509.KeyUsage:
        return x509.KeyUsage(sign, False, False, False, False, not sign, not sign, False, False)

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def begun(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder(issuer_name=name("Root"), subject_name=name(subject), public_key=public)
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=days))
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)

    root = begun("Root", root_key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    root = root.add_extension(usage(sign=False), True)
    leaf = begun("Signer", key.public_key()).add_extension(x509.BasicConstraints(False, None), True)
    leaf = leaf.add_extension(usage(sign=True), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
    pem = serialization.Encoding.PEM
    roots = root.sign(root_key, hashes.SHA256()).public_bytes(pem)
    files = Issued(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    files.certificate.write_bytes(leaf.sign(root_key, hashes.SHA256()).public_bytes(pem) + roots)
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files.key.write_bytes(key.private_bytes(pem, *plain))
    files.root.write_bytes(roots)
    return files


@pytest.fixture(scope="session")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    """A sound certificate."""
    return issue(tmp_path_factory.mktemp("certificate"))
