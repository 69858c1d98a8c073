"""What ``sagectl simulate`` runs and writes."""
