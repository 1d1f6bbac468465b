"""NVIDIA's reports, devices and RIMs (the verifier that uses them is in tee/)."""
