"""The Open Inference Protocol over gRPC: messages (`schema`) and what they mean as REST requests (`translate`)."""
