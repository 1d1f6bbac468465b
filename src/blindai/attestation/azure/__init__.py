"""Azure's vTPM: the HCL report and what a policy says of it (the verifier that uses them is in tee/)."""
