"""Writes the alerts of docker/prometheus as Prometheus Operator takes them; run it after a change of theirs."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ALERTS = HERE.parent / "prometheus" / "alerts.yml"
WRITTEN = HERE / "components" / "monitoring" / "alerts.yaml"
HEAD = """\
# Written by write_alerts.py from docker/prometheus/alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sage
  namespace: sage
spec:
"""


def manifest() -> str:
    """Return the alerts as a PrometheusRule."""
    rules = ALERTS.read_text()
    rules = rules[rules.index("groups:") :]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in rules.splitlines())


if __name__ == "__main__":
    WRITTEN.write_text(manifest())
