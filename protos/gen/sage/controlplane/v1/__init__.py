"""Generated from protos/sage/controlplane/v1 by `make proto`; nothing here is written by hand."""
