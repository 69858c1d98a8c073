"""The values that cross the link between an executor and a scheduler, one file per direction and stream."""
