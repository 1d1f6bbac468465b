"""TPM 2.0's parts: quotes, keys, event logs (the verifier that uses them is in tee/)."""
