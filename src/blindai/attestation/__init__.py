"""The verifier: is this evidence trusted? Pure, so that it can be audited alone (docs/spec/appraisal.md)."""
