"""What cryptography only warns of: names outside their bounds are refused, a serial number of 0 is the caller's matter.

A warning is an exception where warnings are errors, and nothing where they are not; a verdict must not depend on that.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

# Bytes of UTF-8 (RFC 5280, appendix A: ub-country-name-alpha-length, ub-common-name).
_BOUNDS = {
    NameOID.COUNTRY_NAME: range(2, 3),
    NameOID.JURISDICTION_COUNTRY_NAME: range(2, 3),
    NameOID.COMMON_NAME: range(1, 65),
}


@contextmanager
def without_warnings() -> Iterator[None]:
    """For the first look at certificates, lists and answers; what is read so must be judged by `require_bounded`."""
    with warnings.catch_warnings():
        # Threads share the filters, and one may find them as another left them: so nobody else's warnings are meant.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"blindai\.attestation\.")
        yield


def require_bounded(name: x509.Name) -> None:
    """Names within their bounds, so that nothing warns of them later.

    Raises:
        ValueError: a country or common name that is too short or too long.
    """
    for attribute in name:
        bounds = _BOUNDS.get(attribute.oid)
        if bounds is not None and len(str(attribute.value).encode()) not in bounds:
            msg = f"a name's attribute {attribute.oid.dotted_string} is out of its bounds"
            raise ValueError(msg)
