"""Commands: one thin file each, ``python -m jobs.NAME --config configs/NAME.yaml key=value …``."""
