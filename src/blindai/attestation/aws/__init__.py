"""AWS Nitro's documents (the verifier that uses them is in tee/)."""
