"""What a verb's exit code means; the same for every verb that appraises or verifies (docs/reference/cli.md).

0 trusted · 1 failed for another reason · 2 usage · 3 endorsements unavailable · 4 not fresh or not bound ·
5 policy · 6 not authentic or malformed
"""

from __future__ import annotations

from blindai import errors

FAILED = 1
USAGE = 2
INTERRUPTED = 130  # as a shell says of SIGINT

_CODES: tuple[tuple[type[errors.BlindAIError], int], ...] = (
    (errors.EndorsementsUnavailableError, 3),
    (errors.StaleEvidenceError, 4),
    (errors.KeysetExpiredError, 4),
    (errors.PeerKeyMismatchError, 4),
    (errors.PolicyViolationError, 5),
    (errors.WrongServiceError, 5),
    (errors.WrongOperatorError, 5),
    (errors.MalformedEvidenceError, 6),
    (errors.UnauthenticEvidenceError, 6),
    (errors.InvalidReceiptError, 6),
    (errors.InvalidManifestError, 6),
    (errors.InvalidPolicyError, USAGE),
    (errors.InvalidSettingsError, USAGE),
)


def exit_code(error: errors.BlindAIError) -> int:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
