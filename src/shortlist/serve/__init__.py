"""The retrieval service: request -> slate without HTTP, HTTP on top. No torch, no trainer."""
