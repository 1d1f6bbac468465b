"""AMD SEV-SNP's parts (the verifier that uses them is in tee/)."""
