"""What TDX and SGX share: quotes, certificates, collateral (the verifier that uses them is in tee/)."""
