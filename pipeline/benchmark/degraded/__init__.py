"""Students under degradations: `vsdmot measure degraded`."""
