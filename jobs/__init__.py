"""Commands, one thin file each: ``vsdmot NAME key=value …`` or ``python -m jobs.NAME``."""
