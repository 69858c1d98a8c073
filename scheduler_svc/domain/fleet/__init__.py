"""The instances there are: record, pools by model, reports, health, and what runs on them."""
