"""Recordings of a scheduler (`sage-scheduler --record FILE`): read, replayed, and calibrated from."""
