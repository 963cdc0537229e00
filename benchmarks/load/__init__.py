"""What the load and fault commands share: stores of any size, a server process, an open-loop client."""
