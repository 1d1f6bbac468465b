"""The local proxy: plain Open Inference Protocol on this machine, sealed messages to a verified server beyond it."""
