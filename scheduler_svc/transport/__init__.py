"""gRPC servicers, conversion between messages and control's types, and the table from errors to statuses."""
